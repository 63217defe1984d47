"""The scripts that read a run, ask it to stop, bury it or remove it."""

from __future__ import annotations

from .scripts import COMMON, FINISH, REMOVE, Script

#: KEYS: meta, entries. ARGV: epoch, outcome, token, doubt, channels of news and of requests.
BURY = Script(
    COMMON
    + FINISH
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome", "ended_by", "alive", "lease",
  "doubted", "last", "keep")
if run[1] ~= ARGV[1] then return "gone" end
if run[2] then return run[3] == ARGV[3] and "buried" or "gone" end
local now = clock()
if not lapsed(now, tonumber(run[4]), tonumber(run[5])) then return "alive" end
local doubted = tonumber(run[6] or now + 1)
if doubted > now then
  doubted = now
  redis.call("HSET", KEYS[1], "doubted", now)
end
if now - doubted < tonumber(ARGV[4]) then
  redis.call(publish, ARGV[6], "q " .. ARGV[1] .. "\\n")
  return "doubted"
end
finish(tonumber(run[7]), tonumber(run[8]), ARGV[2], ARGV[3], ARGV[5])
redis.call(publish, ARGV[6], "f " .. ARGV[1] .. "\\n")
return "buried"
""",
    2,
)

#: KEYS: meta, entries. ARGV: after, limit, bytes, how long an ended run is kept at least.
READ = Script(
    COMMON
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "first", "last", "head", "outcome", "alive",
  "lease")
if not run[1] then return {} end
if run[5] and redis.call("PTTL", KEYS[1]) < tonumber(ARGV[4]) then expire(ARGV[4]) end
local over = not run[5] and lapsed(clock(), tonumber(run[6]), tonumber(run[7]))
local first, last = tonumber(run[2]), tonumber(run[3])
local after, limit, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {run[1], first, last, run[4], run[5], over and 1 or 0}
-- The server has dropped entries. The producer of a run that goes on may write them again.
local hole = run[5] and {} or {"hole"}
if after + 1 < first then return answer end
local stop = math.min(last, after + limit)
local read, size, count = after, 0, 4
while read < stop and size < bytes do
  -- How many more will fit, if they are like those that were read.
  local found = redis.call("XRANGE", KEYS[2], text(read + 1), text(stop), "COUNT", count)
  for _, entry in ipairs(found) do
    read = read + 1
    if entry[1] ~= text(read) .. "-0" then return hole end
    answer[#answer + 1] = entry[2][2]
    size = size + #entry[2][2]
    if size >= bytes then break end
  end
  if #found == 0 then return hole end
  local mean = math.max(1, size / (read - after))
  count = math.max(1, math.min(2 * count, math.ceil((bytes - size) / mean)))
end
return answer
""",
    2,
)

#: KEYS: meta.
GET = Script(
    COMMON
    + """
local run = redis.call("HGETALL", KEYS[1])
if #run == 0 then return {} end
local is = {}
for place = 1, #run, 2 do is[run[place]] = run[place + 1] end
local over = not is.outcome and lapsed(clock(), tonumber(is.alive), tonumber(is.lease))
run[#run + 1] = "lapsed"
run[#run + 1] = over and "1" or ""
return run
""",
    1,
)

#: KEYS: meta. ARGV: epoch.
TOUCH = Script(
    COMMON
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome")
if run[1] == ARGV[1] and not run[2] then redis.call("HSET", KEYS[1], "watched", clock()) end
""",
    1,
)

#: KEYS: meta, early. ARGV: reason, the field of the owner who asks, epoch, unwatched for, remember,
#: channel of requests.
CANCEL = Script(
    COMMON
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "owner", "outcome", "cancel", "watched")
local now = clock()
if not run[1] then
  if ARGV[3] ~= "" then return "ended" end
  local known = redis.call("HGETALL", KEYS[2])
  for place = 1, #known, 2 do
    if tonumber(known[place + 1]:match("^%d+")) <= now or #known - place > 200 then
      redis.call("HDEL", KEYS[2], known[place])
    elseif known[place] == ARGV[2] then
      return "unknown"
    end
  end
  redis.call("HSET", KEYS[2], ARGV[2], text(now + ARGV[5]) .. ":" .. ARGV[1])
  redis.call("PEXPIRE", KEYS[2], ARGV[5])
  return "unknown"
end
if ARGV[2] ~= "" and (not run[2] or ARGV[2] ~= "=" .. run[2]) then return "foreign" end
if run[3] or (ARGV[3] ~= "" and ARGV[3] ~= run[1]) then return "ended" end
if ARGV[4] ~= "" and now - tonumber(run[5]) < tonumber(ARGV[4]) then return "ended" end
local reason = run[4]
if not reason then
  reason = ARGV[1]
  redis.call("HSET", KEYS[1], "cancel", reason)
end
redis.call(ARGV[7], ARGV[6], "c " .. run[1] .. "\\n" .. reason)
return "running"
""",
    2,
)

#: KEYS: meta, entries, early. ARGV: epoch, how long the removal is remembered, channel of news.
DELETE = Script(
    COMMON
    + REMOVE
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome")
if run[1] ~= ARGV[1] then return "gone" end
if not run[2] then return "running" end
remove()
return "deleted"
""",
    3,
)
