"""An ADwin-Pro II in software: ADbasic programs, the processor, its modules, the vendor's dll.

The real-time controller is simulated at its lowest software seam. The vendor's Python wrapper
talks to a `SimulatedDll`, which loads the same ``.bas`` that the vendor's compiler makes into a
binary for the hardware. Everything here is simulated, and nothing has been compared with
hardware: what the language or the processor does where no public document says so is a named
option (`Semantics`, `Costs`, `ProcessorModel`) whose default is assumed.

    .bas -> `preprocessor` -> `parser` (adbasic.lark) -> `tree` -> `transpiler` -> Python
    `Process` runs the Python in virtual time; `AdwinSystem` shares the processor out;
    `Hardware` is what the instructions act on; `SimulatedDll` is what the host sees.

Importing this package is cheap; import its modules for what is in them.
"""
