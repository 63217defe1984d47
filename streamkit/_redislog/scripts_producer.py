"""
The scripts of a producer.

All except the first and the last begin with the same code. It finds out whether the run still
belongs to this producer, and whether the server has everything that it has acknowledged.
"""

from __future__ import annotations

from .scripts import COMMON, FINISH, REMOVE, Script

# KEYS: meta, entries. ARGV: epoch, acknowledged, oldest.
_OWN = (
    COMMON
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome", "fenced", "last", "first", "cancel",
  "alive", "doubted", "watched", "lease", "keep", "refreshed", "head", "ended_by")
local last, lease, keep = tonumber(run[4]), tonumber(run[10]), tonumber(run[11])
local now = clock()
local function is_fenced()
  return run[1] ~= ARGV[1] or run[2] or run[3]
end
local function behind(known)
  if known + 1 >= tonumber(ARGV[3]) then return {"behind", known} end
  redis.call("HSET", KEYS[1], "fenced", 1, "alive", 0)
  return {"fenced"}
end
local function live(...)
  local fields = {"alive", now, ...}
  local watched, silent = tonumber(run[9]), now - tonumber(run[7])
  if silent > lease * 2 / 3 then
    -- Meanwhile, no reader could report.
    watched = math.min(now, math.floor(watched + silent - lease / 3))
    fields[#fields + 1] = "watched"
    fields[#fields + 1] = watched
  end
  if run[8] then redis.call("HDEL", KEYS[1], "doubted") end
  local refreshed = tonumber(run[12])
  if now - refreshed > lease / 3 or now < refreshed then
    expire(going(lease, keep))
    fields[#fields + 1] = "refreshed"
    fields[#fields + 1] = now
  end
  redis.call("HSET", KEYS[1], unpack(fields))
  return {"ok", run[6], math.max(0, now - watched)}
end
"""
)

#: KEYS: meta, entries, early. ARGV: epoch, lease, keep, the field of the owner, then the fields of
#: the run.
CREATE = Script(
    COMMON
    + """
local now = clock()
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome", "cancel", "watched")
if run[1] then
  if run[1] ~= ARGV[1] or run[2] then return {"exists"} end
  -- This is a sign of life of its producer.
  redis.call("HSET", KEYS[1], "alive", now)
  redis.call("HDEL", KEYS[1], "doubted")
  return {"ok", run[3], math.max(0, now - tonumber(run[4]))}
end
-- The run was removed, and this call comes late.
if redis.call("HGET", KEYS[3], "-" .. ARGV[1]) then return {"exists"} end
-- The server may have dropped one key and not the other.
redis.call("DEL", KEYS[2])
redis.call("HSET", KEYS[1], "epoch", ARGV[1], "lease", ARGV[2], "keep", ARGV[3], "first", 1,
  "last", 0, "alive", now, "watched", now, "refreshed", now, unpack(ARGV, 5))
local cancel, soonest = false, math.huge
for _, field in ipairs({"", ARGV[4]}) do
  local early = redis.call("HGET", KEYS[3], field)
  if early then
    redis.call("HDEL", KEYS[3], field)
    local limit, reason = early:match("^(%d+):(.*)$")
    limit = tonumber(limit)
    -- The first reason counts: all are remembered for the same time.
    if limit > now and limit < soonest then cancel, soonest = reason, limit end
  end
end
if cancel then redis.call("HSET", KEYS[1], "cancel", cancel) end
expire(going(ARGV[2], ARGV[3]))
return {"ok", cancel, 0}
""",
    3,
    needs_memory=True,
)

#: As for ``_OWN``, then: position, first, head, limit, the entries, channel of news.
APPEND = Script(
    _OWN
    + """
local publish, news = table.remove(ARGV), table.remove(ARGV)
if is_fenced() then return {"fenced"} end
if last < tonumber(ARGV[2]) then return behind(last) end
local position, head = tonumber(ARGV[4]), ARGV[6]
local first, kept = tonumber(run[5]), math.max(tonumber(run[5]), tonumber(ARGV[5]))
-- Where the entry of a position is among the arguments.
local offset = 8 - position
local final = last
if #ARGV > 7 then
  if position > last + 1 then return {"hole", last} end
  final = math.max(last, position + #ARGV - 8)
end
local from = math.max(last + 1, kept)
for place = from, final do
  local entry, id = ARGV[place + offset], text(place)
  if place > from then
    redis.call("XADD", KEYS[2], id, "", entry)
  elseif last >= first then
    local added = redis.pcall("XADD", KEYS[2], "NOMKSTREAM", id, "", entry)
    if type(added) ~= "string" then
      -- The server has dropped the entries, or they are not ours.
      if first >= tonumber(ARGV[3]) then redis.call("HSET", KEYS[1], "last", first - 1) end
      return behind(first - 1)
    end
  else
    redis.call("DEL", KEYS[2])
    redis.call("XADD", KEYS[2], id, "", entry)
    redis.call("PEXPIRE", KEYS[2], text(going(lease, keep)))
  end
end
if kept > first then redis.call("XTRIM", KEYS[2], "MINID", "~", text(kept)) end
local answer
if head ~= "" then
  answer = live("last", final, "first", kept, "head", head)
else
  answer = live("last", final, "first", kept)
end
if final >= from or head ~= "" then
  local size, parts = 0, {}
  for place = from, final do
    size = size + #ARGV[place + offset]
    parts[#parts + 1] = #ARGV[place + offset]
  end
  if final < from or size > tonumber(ARGV[7]) then
    redis.call(publish, news, "h " .. ARGV[1] .. " " .. text(final) .. "\\n")
  else
    local status = head
    if status == "" then status = run[13] or "-" end
    redis.call(publish, news, "a " .. ARGV[1] .. " " .. text(from) .. " " .. text(kept) .. " "
      .. status .. " " .. table.concat(parts, " ") .. "\\n"
      .. table.concat(ARGV, "", from + offset, final + offset))
  end
end
return answer
""",
    2,
    needs_memory=True,
)

#: As for ``_OWN``.
RENEW = Script(
    _OWN
    + """
if is_fenced() then return {"fenced"} end
if last < tonumber(ARGV[2]) then return behind(last) end
return live()
""",
    2,
)

#: As for ``_OWN``. Returns what was asked for, and is not a sign of life.
PEEK = Script(
    _OWN
    + """
if is_fenced() then return {"fenced"} end
return {"ok", run[6], 0}
""",
    2,
)

#: As for ``_OWN``, then: outcome, token, channel of news.
END = Script(
    _OWN
    + FINISH
    + """
if run[1] == ARGV[1] and run[2] and run[14] == ARGV[5] then return {"ok"} end
if is_fenced() then return {"fenced"} end
if last < tonumber(ARGV[2]) then return behind(last) end
finish(last, keep, ARGV[4], ARGV[5], ARGV[6])
return {"ok"}
""",
    2,
)

#: Removes a run whose producer was never told that it exists. KEYS: meta, entries, early. ARGV:
#: epoch, how long the removal is remembered, channel of news.
UNDO = Script(
    COMMON
    + REMOVE
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "last")
if run[1] and (run[1] ~= ARGV[1] or run[2] ~= "0") then return "gone" end
remove()
return "deleted"
""",
    3,
)
