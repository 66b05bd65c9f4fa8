"""The applications that come with NetQASM, run here and judged by what they promise.

`catalogue` says what each has to show, `states` and `outcomes` are the criteria, `ideal` and
`statistics` what those rest on, and `suite` runs the applications.
"""
