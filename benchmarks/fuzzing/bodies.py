"""Target `payload`: what becomes of a body, on each of the ways there are, is what `tests/ingest_oracle.py` says."""

from benchmarks.fuzzing.target import Target
from tests.ingest_oracle import check_body

_START = b'"client_received_start_timestamp":'
_PLAIN = b'{"client_received_start_timestamp":1,"client_id":"key-1","x":[[1],"\\u007b"]}'
_RECORDS = (
    b'{"client_received_start_timestamp":1}',
    b'{"client_received_start_timestamp":2,"client_received_end_timestamp":3,"client_id":"key-1","a":[1,{"b":null}]}',
    b'{"client_received_start_timestamp":1,"organization":"","\\u006frganization":null,"environment":"x","z":1.10}',
    b'{"client_received_start_timestamp":1,"client\\u005fid":"key-2","developer":"d","api_product":null,"x":"\\ud800"}',
    b'{"client_received_start_timestamp":1,"":-1e400,"k":"\\"\\\\\\/\\b\\f\\n\\r\\t\\ud83d\\ude00"}',
    b'{"client_received_start_timestamp":12345678901234567890,"client_id":"\\udc00","\xc3\xbc":"\xf0\x9f\x98\x80"}',
)

PAYLOAD = Target(
    "payload",
    check_body,
    seeds=(
        b'{"records":[' + b",".join(_RECORDS) + b"]}",
        *(b'{"records":[' + record + b"]}" for record in _RECORDS),
        b'{"organization":"o","environment":"e","records":[\r\n{"client_received_start_timestamp":1}\n]}',
        b'{"records":5,"records":[{"client_received_start_timestamp":1}],"x":"\\ud800"}',
        b'{"records":[{"client_received_start_timestamp":%b}]}' % (b"9" * 400),
        b'{"a":' + b"[" * 199 + b"]" * 199 + b',"records":[{"client_received_start_timestamp":1}]}',
        b'{"records":[{"client_received_start_timestamp":1,"a":' + b'{"b":' * 197 + b"0" + b"}" * 197 + b"}]}",
        b'{"records":[1,2,3,4,5,6,7,8,9]}',
        b'{"x":[],"records":[' + b" , ".join([_PLAIN] * 3) + b'],"organization":"o","environment":["}"]}',
        b'{"records":[' + _PLAIN + b'],"records":[' + _PLAIN + b'],"x":"}{"}',
        b'{"organization":"' + b"o" * 2100 + b'","records":[{"client_received_start_timestamp":1}]}',
        b'{"records":null}',
        b"[]",
    ),
    words=(
        *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"null", b"true", b"false", b"NaN", b"-Infinity", b"1e3"),
        *(
            b'"records":',
            b'"organization":',
            b'"environment":',
            b'"client_id":',
            b'"api_product":',
            b'"developer":null',
        ),
        *(_START, b'"client_received_end_timestamp":', b'"key-1"', b'"",', b'"":1,', b"{}", b"[[", b"]]", b"[]", b"-0"),
        *(b"\\ud800", b"\\udfff", b"\\ud83d\\ude00", b"\\u005f", b"\\u0000", b"\xed\xa0\x80", b"\xff", b"\xef\xbb\xbf"),
        *(b"\n", b"\r", b"\t", b" ", b"\0", b"1" * 5000, b"[" * 250, b"]" * 250, b'{"a":' * 250, b"0.0", b",{},"),
    ),
    longest_bytes=8192,
)
