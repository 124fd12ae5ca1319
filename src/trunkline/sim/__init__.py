"""Disasters by seed: the real decision code and its real shells under virtual time.

A seed decides the schedule of tasks, the network's and the disks' faults, who crashes when, and
what apps ask. Checkers stand outside and judge only what apps saw, what crossed the wire and what
is on the disks. Nothing here serves anybody: no real clock, socket, file or thread is touched.
"""
