"""The conformance suite, run on the devices that come with the project."""

FOR_REGISTERS = {
    "angles in smaller units add up",
    "a gate on two qubits rotates the second by the first",
    "states are swapped and moved",
    "a Bell measurement names the Bell state",
    "a second qubit that does not exist, or is the first, is refused",
    "a memory is neither read out nor entangled",
}
"""Rules that do not concern a device with one qubit and angles that are multiples of pi/16."""
