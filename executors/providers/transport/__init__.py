"""What calls to all vendors share.

vendor.py            who answers, and what its errors mean for a job
http.py              the client of a vendor: timeouts, retries, replies
limits.py            calls at a time, calls a second, pauses that a vendor demands
retry_after.py       when a vendor takes requests again
connections.py       connections that are aborted, not only closed
dns.py               lookups in threads of their own
sse.py               server-sent events
finish_reasons.py    why an answer ended
pending_requests.py  requests that are answered later: saved, polled, resumed, cancelled
results.py           pictures in answers, or behind their URLs
prompts.py           one prompt out of the fields of a job
"""
