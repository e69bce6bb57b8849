"""The Lua scripts of security/counters.py. Redis runs each as one step, with nothing in between."""

from hashlib import sha1


class Script:
    """`sha`: the name under which Redis keeps a script that it has run once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = sha1(source.encode(), usedforsecurity=False).hexdigest()


COUNT_FUNCTION = """
local function count_request(counter)
  local count = redis.call('INCR', counter)
  local left = redis.call('PTTL', counter)
  if left < 0 then
    redis.call('PEXPIRE', counter, ARGV[1])
    left = tonumber(ARGV[1])
  end
  return count, left
end
"""
# KEYS: the counter. ARGV: the window in ms. Returns {count, ms left of the window}.
COUNT_REQUEST = Script(f"""{COUNT_FUNCTION}
local count, left = count_request(KEYS[1])
return {{count, left}}
""")
# KEYS: the session, its user's counter and, if the operation serves callers without a living session too, the
# counter of the caller's address. ARGV: the window in ms.
# Returns {what is known of the session, count, ms left of the window}; the count is 0 if nothing was counted.
ANSWER_FUNCTION = f"""{COUNT_FUNCTION}
local function answer(known)
  local counter = KEYS[2]
  if known == 'ended' then counter = KEYS[3] end
  if not known or not counter then return {{known, 0, 0}} end
  local count, left = count_request(counter)
  return {{known, count, left}}
end
"""
LOOK_UP_SESSION = Script(f"""{ANSWER_FUNCTION}
return answer(redis.call('GET', KEYS[1]))
""")
# ARGV, besides: what PostgreSQL says of the session, and for how many ms to remember it (0: not at all). A
# tombstone is not overwritten, and an earlier answer is not remembered for longer.
REMEMBER_SESSION = Script(f"""{ANSWER_FUNCTION}
local known = redis.call('GET', KEYS[1])
if known ~= 'ended' then
  if ARGV[2] == 'ended' or (not known and tonumber(ARGV[3]) > 0) then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
  known = ARGV[2]
end
return answer(known)
""")

# Until the service says how an attempt to sign in ended, the attempt is a field beside `count` and
# `first_attempt`: `attempt:{id}`, with the time (s since the epoch) at which its lease ends, and it no longer
# counts. KEYS: the attempts of the e-mail, those of the address. ARGV: how many are allowed of each, window
# in s, id and lease in s of this one, and the time after which nobody waits for the answer. Returns {1 if it
# is allowed, 0 if not, -1 if it is too late; attempts of the e-mail; ms left of the window of the limit that
# decides}.
TAKE_ATTEMPT = Script("""
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if now > tonumber(ARGV[6]) then return {-1, 0, 0} end
local function taken(key)
  local count, lapsed = 0, {}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] == 'count' then
      count = tonumber(fields[i + 1])
    elseif string.sub(fields[i], 1, 8) == 'attempt:' and tonumber(fields[i + 1]) < now then
      lapsed[#lapsed + 1] = fields[i]
    end
  end
  for _, field in ipairs(lapsed) do
    redis.call('HDEL', key, field)
    count = redis.call('HINCRBY', key, 'count', -1)
  end
  if #lapsed > 0 and count <= 0 then redis.call('DEL', key) end
  return math.max(count, 0)
end
local of_email, of_address = taken(KEYS[1]), taken(KEYS[2])
if of_email >= tonumber(ARGV[1]) then return {0, of_email, redis.call('PTTL', KEYS[1])} end
if of_address >= tonumber(ARGV[2]) then return {0, of_email, redis.call('PTTL', KEYS[2])} end
for i = 1, 2 do
  redis.call('HINCRBY', KEYS[i], 'count', 1)
  redis.call('HSET', KEYS[i], 'attempt:' .. ARGV[4], tostring(math.floor(now) + tonumber(ARGV[5])))
  if redis.call('HSETNX', KEYS[i], 'first_attempt', time[1]) == 1 then
    redis.call('EXPIRE', KEYS[i], ARGV[3])
  end
end
return {1, of_email + 1, redis.call('PTTL', KEYS[1])}
""")
# The attempt has failed, and counts for the rest of the window, which may be a new one. ARGV: id, window in
# s.
KEEP_ATTEMPT = Script("""
for i = 1, #KEYS do
  if redis.call('HDEL', KEYS[i], 'attempt:' .. ARGV[1]) == 0 then
    redis.call('HINCRBY', KEYS[i], 'count', 1)
  end
  if redis.call('HSETNX', KEYS[i], 'first_attempt', redis.call('TIME')[1]) == 1 then
    redis.call('EXPIRE', KEYS[i], ARGV[2])
  end
end
""")
# The attempt did not fail, and does not count. ARGV: its id.
RETURN_ATTEMPT = Script("""
for i = 1, #KEYS do
  if redis.call('HDEL', KEYS[i], 'attempt:' .. ARGV[1]) == 1
      and redis.call('HINCRBY', KEYS[i], 'count', -1) <= 0 then
    redis.call('DEL', KEYS[i])
  end
end
""")
