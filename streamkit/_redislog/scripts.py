"""
What the server does: a script for each write, so that it is done as a whole or not at all.

Each looks first, and writes then. What is known of a run is in one hash, whose fields have names
that can be read. Times are milliseconds of the server's clock. A number that is given to a command
is written without an exponent, but not one that is joined to text: for that there is ``text()``.

The last arguments of a script that publishes are its channels, and what publishes.

The lease is a field, ``alive``, and not the life of the key: so a key that the server has dropped
for want of memory, and one that was restored, is no producer that has died. A clock that is put
back by more than the lease does not keep a run alive. The keys outlive the lease by ``keep``.

Where the server has fewer entries than the producer knows that it had, it has lost some. The
producer is told how many there are, if it still has the missing ones (from ``oldest`` on), and
writes them again; else the run takes no more from it, and counts as lapsed at once.

Creating and appending need memory. All else is allowed without (``allow-oom``).
"""

from __future__ import annotations

from hashlib import sha1

# How much of its lease a producer may be silent before it counts as cut off.
_COMMON = """
local function clock()
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function text(number) return string.format("%.0f", number) end
local function lapsed(now, alive, lease)
  return now - alive >= lease or alive - now > lease
end
local function expire(milliseconds)
  redis.call("PEXPIRE", KEYS[1], text(milliseconds))
  redis.call("PEXPIRE", KEYS[2], text(milliseconds))
end
"""

# KEYS: meta, entries. ARGV: epoch, acknowledged, oldest.
_PRODUCER = (
    _COMMON
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
    -- Nobody could say that they read.
    watched = math.min(now, math.floor(watched + silent - lease / 3))
    fields[#fields + 1] = "watched"
    fields[#fields + 1] = watched
  end
  if run[8] then redis.call("HDEL", KEYS[1], "doubted") end
  local refreshed = tonumber(run[12])
  if now - refreshed > lease / 3 or now < refreshed then
    expire(lease + keep)
    fields[#fields + 1] = "refreshed"
    fields[#fields + 1] = now
  end
  redis.call("HSET", KEYS[1], unpack(fields))
  return {"ok", run[6], math.max(0, now - watched)}
end
"""
)

# What ends a run, for its producer and for who buries it.
_FINISH = """
local publish = table.remove(ARGV)
local function finish(last, keep, outcome, token, news)
  redis.call("HSET", KEYS[1], "outcome", outcome, "ended_by", token)
  redis.call("HDEL", KEYS[1], "doubted")
  local heard = redis.call(publish, news,
    "e " .. ARGV[1] .. " " .. text(last) .. "\\n" .. outcome)
  if heard > 0 then keep = math.max(keep, 60000) end
  expire(keep)
end
"""


class Script:
    """
    A script.

    :param source: in Lua, without its first line
    :param keys: how many keys it has
    :param needs_memory: whether it is refused when memory is full

    """

    def __init__(self, source: str, keys: int, *, needs_memory: bool = False) -> None:
        flags = "" if needs_memory else " flags=allow-oom"
        self.source: bytes = f"#!lua{flags}\n{source}".encode()
        self.sha: bytes = sha1(self.source, usedforsecurity=False).hexdigest().encode()
        self.keys: int = keys
        self.needs_memory: bool = needs_memory


#: KEYS: meta, entries, early. ARGV: epoch, lease, keep, fields of the one who asks, then the fields
#: of the run.
CREATE = Script(
    _COMMON
    + """
local now = clock()
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome", "cancel", "watched")
if run[1] then
  if run[1] ~= ARGV[1] or run[2] then return {"exists"} end
  return {"ok", run[3], math.max(0, now - tonumber(run[4]))}
end
-- The server may have dropped the one and not the other.
redis.call("DEL", KEYS[2])
redis.call("HSET", KEYS[1], "epoch", ARGV[1], "lease", ARGV[2], "keep", ARGV[3], "first", 1,
  "last", 0, "alive", now, "watched", now, "refreshed", now, unpack(ARGV, 5))
local cancel = false
for _, field in ipairs({"", ARGV[4]}) do
  local early = redis.call("HGET", KEYS[3], field)
  if early then
    redis.call("HDEL", KEYS[3], field)
    local limit, reason = early:match("^(%d+):(.*)$")
    if tonumber(limit) > now then cancel = reason end
  end
end
if cancel then redis.call("HSET", KEYS[1], "cancel", cancel) end
expire(ARGV[2] + ARGV[3])
return {"ok", cancel, 0}
""",
    3,
    needs_memory=True,
)

#: As above, then: position, first, head, limit, the entries, channel of news.
APPEND = Script(
    _PRODUCER
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
      -- The server has dropped the entries, or they are none of ours.
      if first >= tonumber(ARGV[3]) then redis.call("HSET", KEYS[1], "last", first - 1) end
      return behind(first - 1)
    end
  else
    redis.call("DEL", KEYS[2])
    redis.call("XADD", KEYS[2], id, "", entry)
    redis.call("PEXPIRE", KEYS[2], text(lease + keep))
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

#: As above.
RENEW = Script(
    _PRODUCER
    + """
if is_fenced() then return {"fenced"} end
if last < tonumber(ARGV[2]) then return behind(last) end
return live()
""",
    2,
)

#: As above, then: outcome, token, channel of news.
END = Script(
    _PRODUCER
    + _FINISH
    + """
if run[1] == ARGV[1] and run[2] and run[14] == ARGV[5] then return {"ok"} end
if is_fenced() then return {"fenced"} end
if last < tonumber(ARGV[2]) then return behind(last) end
finish(last, keep, ARGV[4], ARGV[5], ARGV[6])
return {"ok"}
""",
    2,
)

#: KEYS: meta, entries. ARGV: epoch, outcome, token, doubt, channels of news and of requests.
BURY = Script(
    _COMMON
    + _FINISH
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

#: KEYS: meta, entries. ARGV: after, limit, bytes, for how long an ended run is kept at least.
READ = Script(
    _COMMON
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "first", "last", "head", "outcome", "alive",
  "lease")
if not run[1] then return {} end
if run[5] and redis.call("PTTL", KEYS[1]) < tonumber(ARGV[4]) then expire(ARGV[4]) end
local over = not run[5] and lapsed(clock(), tonumber(run[6]), tonumber(run[7]))
local first, last = tonumber(run[2]), tonumber(run[3])
local after, limit, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {run[1], first, last, run[4], run[5], over and 1 or 0}
if after + 1 < first then return answer end
local stop = math.min(last, after + limit)
local read, size, count = after, 0, 4
while read < stop and size < bytes do
  -- How many more will fit, if they are like those that were read.
  local found = redis.call("XRANGE", KEYS[2], text(read + 1), text(stop), "COUNT", count)
  for _, entry in ipairs(found) do
    read = read + 1
    if entry[1] ~= text(read) .. "-0" then return {} end
    answer[#answer + 1] = entry[2][2]
    size = size + #entry[2][2]
    if size >= bytes then break end
  end
  if #found == 0 then return {} end
  local mean = math.max(1, size / (read - after))
  count = math.max(1, math.min(2 * count, math.ceil((bytes - size) / mean)))
end
return answer
""",
    2,
)

#: KEYS: meta.
GET = Script(
    _COMMON
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
    _COMMON
    + """
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome")
if run[1] == ARGV[1] and not run[2] then redis.call("HSET", KEYS[1], "watched", clock()) end
""",
    1,
)

#: KEYS: meta, early. ARGV: reason, the field of who asks, epoch, unwatched for, remember, channel
#: of requests.
CANCEL = Script(
    _COMMON
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

#: KEYS: meta, entries. ARGV: epoch, channel of news.
DELETE = Script(
    """
local run = redis.call("HMGET", KEYS[1], "epoch", "outcome")
if run[1] ~= ARGV[1] then return "gone" end
if not run[2] then return "running" end
redis.call("DEL", KEYS[1], KEYS[2])
redis.call(ARGV[3], ARGV[2], "d " .. ARGV[1] .. "\\n")
return "deleted"
""",
    2,
)

#: As DELETE, for a run whose producer was never told that it is there.
UNDO = Script(
    """
local run = redis.call("HMGET", KEYS[1], "epoch", "last")
if run[1] ~= ARGV[1] or run[2] ~= "0" then return "gone" end
redis.call("DEL", KEYS[1], KEYS[2])
redis.call(ARGV[3], ARGV[2], "d " .. ARGV[1] .. "\\n")
return "deleted"
""",
    2,
)

#: Everything that the others do, to be refused at once. KEYS: meta, entries, early. ARGV: channels
#: of news and of requests.
PROBE = Script(
    """
redis.call("TIME")
redis.call("HSET", KEYS[1], "a", 1)
redis.call("HMGET", KEYS[1], "a")
redis.call("HGETALL", KEYS[1])
redis.call("HGET", KEYS[3], "a")
redis.call("HDEL", KEYS[1], "a")
redis.call("XADD", KEYS[2], "1", "", "")
redis.call("XRANGE", KEYS[2], "1", "1", "COUNT", 1)
redis.call("XTRIM", KEYS[2], "MINID", "~", "1")
redis.call("PEXPIRE", KEYS[2], 1)
redis.call("PTTL", KEYS[2])
redis.call("DEL", KEYS[1], KEYS[2], KEYS[3])
redis.call(ARGV[3], ARGV[1], "")
redis.call(ARGV[3], ARGV[2], "")
""",
    3,
)
