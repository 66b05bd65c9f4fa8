"""The simulated laboratory in real time: devices served over channels, tick by tick.

`laboratory` carries out the commands of the QNPUs on simulated devices and publishes the
responses, ahead of time where that is certain; it knows neither clock nor file. `loop` waits
for doorbells and deadlines, and `statistics` counts how punctual all that was.
"""
