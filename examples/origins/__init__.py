"""The programs that this server grew from: does what they asked for work?"""
