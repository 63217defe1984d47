"""
What the server does: one script for each write, which is done as a whole or not at all.

Each script looks first, and then writes. What is known about a run is in one hash, whose fields
have readable names. Times are milliseconds of the server's clock. Lua passes a number to a command
without an exponent, but may write one when it joins a number to text: ``text()`` avoids that.

The last arguments of a script that publishes are its channels, and the publishing command.

The lease is a field, ``alive``, and not the expiry of the key. So a key that was evicted, or
restored, does not mean that the producer has died. A clock that is set back by more than the lease
does not keep a run alive. The keys outlive the lease by ``keep``, and by a minute at least: a run
that is kept for less must still be there to be buried, and after an outage. Their expiry is put off
when a third of the lease is over.

If the server has fewer entries than the producer knows to be written, it has lost some. If the
producer still has the missing ones (from ``oldest`` on), it is told the last position that is
there, and writes the others again. Otherwise the run accepts nothing more from it, and counts as
lapsed at once.

Creating and appending need memory. All other scripts run without (``allow-oom``).
"""

from __future__ import annotations

from hashlib import sha1

#: The clock, the lease, and the expiry of the keys.
COMMON = """
local function clock()
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function text(number) return string.format("%.0f", number) end
local function lapsed(now, alive, lease)
  return now - alive >= lease or alive - now > lease
end
local function going(lease, keep) return lease * 4 / 3 + math.max(keep, 60000) end
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

#: What removes a run. A call that creates it and comes late must find out.
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
    :param keys: the number of its keys
    :param needs_memory: whether the server refuses it when memory is full

    """

    def __init__(self, source: str, keys: int, *, needs_memory: bool = False) -> None:
        flags = "" if needs_memory else " flags=allow-oom"
        self.source: bytes = f"#!lua{flags}\n{source}".encode()
        self.sha: bytes = sha1(self.source, usedforsecurity=False).hexdigest().encode()
        self.keys: int = keys
        self.needs_memory: bool = needs_memory


#: Does everything that the other scripts do, so that a refusal shows at once. KEYS: meta, entries,
#: early. ARGV: channels of news and of requests.
PROBE = Script(
    """
-- What an earlier probe has left that was refused half-way.
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
