'<ADbasic Header, Headerversion 001.001>
' Process_Number                 = 2
' Initial_Processdelay           = 3000
' Eventsource                    = Timer
' Priority                       = High
'<Header End>
' Answers one frame per tick of 10 us. A command has an opcode in bits 24 to 31 and an argument
' in bits 0 to 7; an opcode other than 0 starts an operation that takes 1 + argument ticks. A
' response has the opcode that has just finished, or 0, in bits 24 to 31, and the low bits of
' the tick counter in bits 0 to 15. Every operation strobes line 16 with its argument on 0 to 7.
#INCLUDE ADwinPro_All.inc
#INCLUDE station.inc
#INCLUDE qd_spi.inc

#DEFINE ticks    PAR_1
#DEFINE rejected PAR_2
#DEFINE STROBE   16

DIM received, command, response, opcode, argument, current, remaining AS LONG

SUB send_word(word)
  P2_DIGOUT_BITS(DIO_MODULE, word AND 0FFh, NOT(word) AND 0FFh)
  P2_DIGOUT(DIO_MODULE, STROBE, 1)
  CPU_SLEEP(9)
  P2_DIGOUT(DIO_MODULE, STROBE, 0)
ENDSUB

LOWINIT:
  P2_DIGPROG(DIO_MODULE, 0101b)
  P2_DIGOUT_LONG(DIO_MODULE, 0)
  link_open()

INIT:
  ticks = 0
  rejected = 0
  current = 0
  remaining = 0

EVENT:
  INC(ticks)
  response = ticks AND 0FFFFh
  IF (current <> 0) THEN
    DEC(remaining)
    IF (remaining = 0) THEN
      response = response OR SHIFT_LEFT(current, 24)
      current = 0
    ENDIF
  ENDIF
  exchange(received, command, response)
  IF (received = 1) THEN
    opcode = SHIFT_RIGHT(command, 24)
    argument = command AND 0FFh
    IF (opcode <> 0) THEN
      IF (current = 0) THEN
        send_word(argument)
        current = opcode
        remaining = 1 + argument
      ELSE
        INC(rejected)
      ENDIF
    ENDIF
  ENDIF
