"""Encoded media in files and in RTP: readers, writers, packetizers, depacketizers. Sans-IO; nothing is decoded.

| file          | reader, writer      | codecs          |
|---------------|---------------------|-----------------|
| `.ivf`        | `ivf`               | VP8, VP9, AV1   |
| `.ogg` `.opus`| `ogg`               | Opus            |
| `.h264`       | `annexb`            | H.264 Annex B   |
"""
