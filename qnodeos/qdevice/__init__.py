"""The QDevice interface: what the QNPU and any quantum device agree on.

Physical instructions and outcomes (with the codes of the published system), the
capabilities a device declares, the 4-byte frames that carry both once per tick, the
QDriver and QDevice protocols, and the conformance suite every device must pass.
"""
