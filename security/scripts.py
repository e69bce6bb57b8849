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

# Failed sign-ins, as PostgreSQL has counted them. KEYS, for each counter: where it is, and where its version.
# ARGV, for each: the version, the failures, the time of the first (s since the epoch), ms left of the window,
# and for how many ms the version is needed. A copy that was overtaken by a newer one changes nothing.
COPY_ATTEMPTS = Script("""
for i = 1, #KEYS / 2 do
  local counter, versions, at = KEYS[2 * i - 1], KEYS[2 * i], 5 * i - 4
  if tonumber(redis.call('GET', versions) or '-1') < tonumber(ARGV[at]) then
    redis.call('SET', versions, ARGV[at], 'PX', ARGV[at + 4])
    redis.call('DEL', counter)
    if tonumber(ARGV[at + 1]) > 0 and tonumber(ARGV[at + 3]) > 0 then
      redis.call('HSET', counter, 'count', ARGV[at + 1], 'first_attempt', ARGV[at + 2])
      redis.call('PEXPIRE', counter, ARGV[at + 3])
    end
  end
end
return 'OK'
""")
