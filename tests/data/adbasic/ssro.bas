'<ADbasic Header, Headerversion 001.001>
' Process_Number                 = 9
' Initial_Processdelay           = 300
' Eventsource                    = Timer
' Priority                       = High
'<Header End>
' Single-shot readout of an NV centre, one step per microsecond: charge-resonance check, spin
' preparation with the A or the E laser, and readout that stops at the first photon.
#INCLUDE ADwinPro_All.inc
#INCLUDE .\Station.inc

#DEFINE MAX_SHOTS 10000
' Parameters: durations in events, powers in volts.
#DEFINE cr_duration      DATA_20[1]
#DEFINE cr_threshold     DATA_20[2]
#DEFINE repump_duration  DATA_20[3]
#DEFINE pump_duration    DATA_20[4]
#DEFINE pump_with_e      DATA_20[5]
#DEFINE readout_duration DATA_20[6]
#DEFINE shots            DATA_20[7]
#DEFINE volts            DATA_21[1]
' Results: counts of every shot, and the event of its readout in which it stopped.
#DEFINE results          DATA_22
#DEFINE stopped_at       DATA_23

#DEFINE CR_CHECK 0
#DEFINE REPUMP   1
#DEFINE PUMP     2
#DEFINE READOUT  3

DIM DATA_20[20] AS LONG
DIM DATA_21[5] AS FLOAT
DIM DATA_22[MAX_SHOTS] AS LONG
DIM DATA_23[MAX_SHOTS] AS LONG AT DRAM_EXTERN
DIM mode, timer, counts, shot, stopped AS LONG

INIT:
  P2_CNT_ENABLE(COUNTER_MODULE, 0)
  P2_CNT_MODE(COUNTER_MODULE, PHOTON_COUNTER, 00001000b)
  light(REPUMP_DAC, 0)
  light(E_DAC, 0)
  light(A_DAC, 0)
  mode = CR_CHECK
  timer = 0
  shot = 0
  PAR_70 = 0   ' failed checks
  PAR_71 = 0   ' passed checks

EVENT:
  SELECTCASE mode
    CASE CR_CHECK
      IF (timer = 0) THEN
        light(E_DAC, volts)
        light(A_DAC, volts)
        start_counting()
      ENDIF
      IF (timer = cr_duration) THEN
        counts = counts_so_far()
        light(E_DAC, 0)
        light(A_DAC, 0)
        timer = -1
        IF (counts < cr_threshold) THEN
          INC(PAR_70)
          mode = REPUMP
        ELSE
          INC(PAR_71)
          mode = PUMP
        ENDIF
      ENDIF

    CASE REPUMP
      IF (timer = 0) THEN light(REPUMP_DAC, volts)
      IF (timer = repump_duration) THEN
        light(REPUMP_DAC, 0)
        mode = CR_CHECK
        timer = -1
      ENDIF

    CASE PUMP
      IF (timer = 0) THEN
        IF (pump_with_e = 1) THEN
          light(E_DAC, volts)
        ELSE
          light(A_DAC, volts)
        ENDIF
      ENDIF
      IF (timer = pump_duration) THEN
        light(E_DAC, 0)
        light(A_DAC, 0)
        mode = READOUT
        timer = -1
      ENDIF

    CASE READOUT
      IF (timer = 0) THEN
        light(E_DAC, volts)
        start_counting()
        stopped = 0
      ELSE
        IF (stopped = 0) THEN
          counts = counts_so_far()
          IF ((counts > 0) OR (timer = readout_duration)) THEN
            light(E_DAC, 0)
            P2_CNT_ENABLE(COUNTER_MODULE, 0)
            stopped = timer
          ENDIF
        ENDIF
      ENDIF
      IF (timer = readout_duration) THEN
        INC(shot)
        results[shot] = counts
        stopped_at[shot] = stopped
        mode = CR_CHECK
        timer = -1
        IF (shot = shots) THEN END
      ENDIF
  ENDSELECT
  INC(timer)

FINISH:
  light(E_DAC, 0)
  light(A_DAC, 0)
  PAR_73 = shot
