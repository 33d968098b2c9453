"""Our own LiveKit client on Trio: a door. `twirp` for the server API, `signal` and `session` to take part in a room.

Works against any LiveKit server: nothing here knows which one it talks to.
"""
