"""HTTP/2: frames by section of RFC 9113, attacks, priorities, header compression."""
