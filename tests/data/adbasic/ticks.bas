'<ADbasic Header, Headerversion 001.001>
' Process_Number                 = 1
' Initial_Processdelay           = 3000
' Eventsource                    = Timer
' Priority                       = High
'<Header End>
' Counts ticks of 10 us in PAR_1 and keeps the time of each in DATA_1, until PAR_2 ticks are done.
#INCLUDE ADwinPro_All.inc

#DEFINE ticks    PAR_1
#DEFINE wanted   PAR_2
#DEFINE CAPACITY 1000

DIM DATA_1[CAPACITY] AS LONG

INIT:
  ticks = 0

EVENT:
  INC(ticks)
  IF (ticks <= CAPACITY) THEN DATA_1[ticks] = READ_TIMER()
  IF (ticks = wanted) THEN END

FINISH:
  PAR_3 = ticks
