"""The ingress: who is asking, is it sound, whose turn is it, and the bytes of the answer.

`app` is the HTTP side (pure ASGI), `turns` waits for the global queue's grants, `relay` carries
bytes between client and replica, `server` is the Ray Serve deployment around them.
"""
