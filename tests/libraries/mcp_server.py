"""An MCP server on stdin and stdout, in the few lines that start at once. Its tool never ends.

What happens is noted in the file that is named as its argument.
"""

import json
import os
import sys

TOOL = {"name": "think", "description": "for ever", "inputSchema": {"type": "object"}}
ANSWERS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "thinker", "version": "1"},
    },
    "tools/list": {"tools": [TOOL]},
}

with open(sys.argv[1], "a") as notes:
    print("started", os.getpid(), file=notes, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        if request["method"] == "tools/call":
            print("called", os.getpid(), file=notes, flush=True)
            continue
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if result := ANSWERS.get(request["method"]):
            answer["result"] = result
        else:
            answer["error"] = {"code": -32601, "message": "Method not found"}
        print(json.dumps(answer), flush=True)
