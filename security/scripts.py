"""The Lua scripts of security/counters.py. Each runs in Redis as one step, whatever else goes on."""

from hashlib import sha1


class Script:
    """`sha` is what Redis knows it by, once it has it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = sha1(source.encode(), usedforsecurity=False).hexdigest()


COUNTED = """
local function counted(counter)
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
COUNT = Script(f"""{COUNTED}
local count, left = counted(KEYS[1])
return {{count, left}}
""")
# KEYS: the session, its user's counter and, where those who have no living session are served as well, the
# counter of the caller's address. ARGV: the window in ms.
# Returns {what is known of the session, count, ms left of the window}; a count of 0 is none.
KNOWN = f"""{COUNTED}
local function answer(known)
  local counter = KEYS[2]
  if known == 'ended' then counter = KEYS[3] end
  if not known or not counter then return {{known, 0, 0}} end
  local count, left = counted(counter)
  return {{known, count, left}}
end
"""
ADMIT = Script(f"""{KNOWN}
return answer(redis.call('GET', KEYS[1]))
""")
# ARGV, too: what PostgreSQL says of the session, and for how many ms to remember it (0: not at all). A
# tombstone stays, and what an earlier answer is remembered for is not prolonged.
SETTLE = Script(f"""{KNOWN}
local known = redis.call('GET', KEYS[1])
if known ~= 'ended' then
  if ARGV[2] == 'ended' or (not known and tonumber(ARGV[3]) > 0) then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
  known = ARGV[2]
end
return answer(known)
""")

# An attempt to sign in is a field of its own, beside `count` and `first_attempt`, until somebody says how it
# ended: `attempt:{id}`, with the moment (s since the epoch) at which it no longer counts if nobody ever does.
# KEYS: the attempts of the e-mail, those of the address. ARGV: attempts allowed of each, window in s, id and
# lease in s of this one, and the moment after which it is not to be taken any more.
# Returns {1 if it may be made, 0 if not, -1 if it is too late; attempts of the e-mail; ms left of the window
# that decides}.
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
# The attempt has failed: it counts for the rest of the window, be it a new one. ARGV: its id, window in s.
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
# The attempt did not fail, and counts no more. ARGV: its id.
RETURN_ATTEMPT = Script("""
for i = 1, #KEYS do
  if redis.call('HDEL', KEYS[i], 'attempt:' .. ARGV[1]) == 1
      and redis.call('HINCRBY', KEYS[i], 'count', -1) <= 0 then
    redis.call('DEL', KEYS[i])
  end
end
""")
