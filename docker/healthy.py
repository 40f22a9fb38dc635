"""Does the server in this container work? For the health checks of compose.yaml, which run often: it imports little.

    python docker/healthy.py grpc 4000      a code server, as it says itself
    python docker/healthy.py http 3000      the web server: GET /healthz

Ends with an error if the server says no, or says nothing for 5 s.
"""

import sys

SECONDS = 5
# The answer SERVING of the gRPC health-checking protocol to the question after "DagsterApi".
QUESTION = b"\x0a\x0aDagsterApi"
SERVING = b"\x08\x01"


def grpc_serves(port: str) -> bool:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return bool(check(QUESTION, timeout=SECONDS, wait_for_ready=False) == SERVING)


def http_answers(port: str) -> bool:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", int(port), timeout=SECONDS)
    connection.request("GET", "/healthz")
    return connection.getresponse().status == 200


if __name__ == "__main__":
    kind, port = sys.argv[1:]
    sys.exit(not {"grpc": grpc_serves, "http": http_answers}[kind](port))
