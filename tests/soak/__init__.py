"""The soak: the whole product at work while one part after the other fails, and at the end nothing may be missing.

`make soak` runs it for 20 minutes, half of them with the files on a volume and half with them in a bucket; `make long`
has a short form. `SOAK_SECONDS` and `SOAK_SEED` choose the length and the plan. The seed is printed first: it decides
which faults come in which order, for how long, and what customers do. How threads and processes take turns it cannot.

- `creators`, `customers`: threads that create, fill, read and delete workspaces, and run jobs and servers in them. They
  repeat what was not answered, as good clients do.
- `ledger`: what they were told, which is what must be there at the end.
- `faults`: what is broken, and what `/status` has to name first meanwhile.
- `scene`: the product, with a proxy before each of its servers and a clock for each of its programs.
- `plan`, `course`: which fault comes when; after each one, a job and a DELETE have to end.
- `watch`: how long maintenance is silent.
- `checks`: what was lost, and what is left.
"""
