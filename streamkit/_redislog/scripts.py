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

#: The clock, the lease, and the life of the keys.
COMMON = """
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

#: What ends a run, for its producer and for its burial.
FINISH = """
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

#: What removes a run. A call that creates it, and comes late, is to find that.
REMOVE = """
local function remove()
  redis.call("DEL", KEYS[1], KEYS[2])
  redis.call("HSET", KEYS[3], "-" .. ARGV[1], text(clock() + ARGV[2]) .. ":")
  redis.call("PEXPIRE", KEYS[3], ARGV[2])
  redis.call(ARGV[4], ARGV[3], "d " .. ARGV[1] .. "\\n")
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


#: Everything that the others do, to be refused at once. KEYS: meta, entries, early. ARGV: channels
#: of news and of requests.
PROBE = Script(
    """
-- What an earlier one has left that was refused half-way.
redis.call("DEL", KEYS[1], KEYS[2], KEYS[3])
redis.call("TIME")
redis.call("HSET", KEYS[1], "a", 1)
redis.call("PEXPIRE", KEYS[1], 1000)
redis.call("HMGET", KEYS[1], "a")
redis.call("HGETALL", KEYS[1])
redis.call("HGET", KEYS[3], "a")
redis.call("HDEL", KEYS[1], "a")
redis.call("XADD", KEYS[2], "1", "", "")
redis.call("PEXPIRE", KEYS[2], 1000)
redis.call("XRANGE", KEYS[2], "1", "1", "COUNT", 1)
redis.call("XTRIM", KEYS[2], "MINID", "~", "1")
redis.call("PTTL", KEYS[2])
redis.call("DEL", KEYS[2])
redis.call(ARGV[3], ARGV[1], "")
redis.call(ARGV[3], ARGV[2], "")
""",
    3,
)
