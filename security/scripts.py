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
ANSWER = """
local function answer(known)
  local counter = KEYS[2]
  if known == 'ended' then counter = KEYS[{address}] end
  if not known or not counter then return {{known, 0, 0}} end
  local count, left = count_request(counter)
  return {{known, count, left}}
end
"""
ANSWER_FUNCTION = COUNT_FUNCTION + ANSWER.format(address=3)
LOOK_UP = "return answer(redis.call('GET', KEYS[1]))"
LOOK_UP_SESSION = Script(ANSWER_FUNCTION + LOOK_UP)
# ARGV, besides: what PostgreSQL says of the session, and for how many ms to remember it (0: not at all). A
# tombstone is not overwritten, and an earlier answer is not remembered for longer.
REMEMBER = """
local known = redis.call('GET', KEYS[1])
if known ~= 'ended' then
  if ARGV[2] == 'ended' or (not known and tonumber(ARGV[3]) > 0) then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
  known = ARGV[2]
end
return answer(known)
"""
REMEMBER_SESSION = Script(ANSWER_FUNCTION + REMEMBER)

# The same two where there is a replica (security/fences.py). KEYS: the session, its user's counter, the
# user's fence, that of links and roles, and the address's counter if there is one. ARGV, before those above:
# an id for a Redis that has none, how many ms a note holds, and for each of the two fences the name of the
# write's note, "" where it does not write. Besides, they return the id of this Redis, and of each fence the
# position, or `writing` while a write is under way.
FENCED_FUNCTION = f"""
local redis_id, lease, notes = ARGV[1], tonumber(ARGV[2]), {{ARGV[3], ARGV[4]}}
for _ = 1, 4 do table.remove(ARGV, 1) end
{COUNT_FUNCTION + ANSWER.format(address=5)}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function fence(key, note)
  local writing = key .. ':writing'
  if note ~= '' then
    redis.call('ZREMRANGEBYSCORE', writing, '-inf', now)
    redis.call('ZADD', writing, now + lease, note)
    redis.call('PEXPIRE', writing, lease)
  end
  if redis.call('ZCOUNT', writing, now, '+inf') > 0 then return 'writing' end
  return redis.call('GET', key) or '0'
end
local unfenced = answer
answer = function(known)
  local told = unfenced(known)
  redis.call('SET', 'fences:id', redis_id, 'NX')
  told[4] = redis.call('GET', 'fences:id')
  told[5] = fence(KEYS[3], notes[1])
  told[6] = fence(KEYS[4], notes[2])
  return told
end
"""
LOOK_UP_FENCED = Script(FENCED_FUNCTION + LOOK_UP)
REMEMBER_FENCED = Script(FENCED_FUNCTION + REMEMBER)
# KEYS: the fences of a write that is over. ARGV: its note, the position, and how many ms that is kept.
SETTLE_WRITE = Script("""
for i = 1, #KEYS do
  redis.call('ZREM', KEYS[i] .. ':writing', ARGV[1])
  local known = redis.call('GET', KEYS[i]) or '0'
  if tonumber(known) < tonumber(ARGV[2]) then known = ARGV[2] end
  redis.call('SET', KEYS[i], known, 'PX', ARGV[3])
end
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
