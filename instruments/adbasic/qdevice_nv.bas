'<ADbasic Header, Headerversion 001.001>
' Process_Number                 = 1
' Initial_Processdelay           = 1000
' Eventsource                    = External
' Priority                       = High
'<Header End>
'
' The QDevice of an NV node: executes the physical instructions of the QNPU.
'
' One event per microsecond, from the 1 MHz clock that the two nodes of a link share. A tick is
' TICK_US events. The QNPU exchanges one frame per tick (qd_spi.inc, docs/frames.md); its arrival
' is phase 0, and the response to the next one is written at the last phase before.
'
' What is done for an instruction (job), state by state; a state ends at the time `due` or at what
' is named:
'
'   INI       charge check, AWG word INI (its marker opens the spin pump), PUMP
'   SQG       AWG word, PLAYING until the AWG has played it
'   MSR       AWG word READOUT, PLAYING, READOUT (ends early at the first photon), HELD
'   ENT, ENM  charge check, [PLAYING, to end the decoupling of an old state], NEIGHBOUR until the
'             other node is ready, COUNTDOWN, ATTEMPTS until a herald, STOPPING without one,
'             AGREE until the other node has it too, AGREED; ENM goes on with BASIS and READOUT
'   PMG       at once
'   CHECK     charge check on request of the host, not of the QNPU
'
' A charge check is CHARGE; if it fails, REPUMP and CHARGE again. The first one after a readout
' is logged for that readout.
#INCLUDE ADwinPro_All.inc
#INCLUDE qd_station.inc
#INCLUDE qd_spi.inc
#INCLUDE qd_frames.inc
#INCLUDE qd_optics.inc

' Counts up when what this program expects of the host, or the other way round, changes.
#DEFINE VERSION           1

#DEFINE TICK_US           10
#DEFINE MAX_BASIS         8
#DEFINE LOG_LENGTH        20000

' States.
#DEFINE IDLE              0
#DEFINE CHARGE            1
#DEFINE REPUMP            2
#DEFINE PUMP              3
#DEFINE PLAYING           4
#DEFINE READOUT           5
#DEFINE HELD              6
#DEFINE NEIGHBOUR         7
#DEFINE COUNTDOWN         8
#DEFINE ATTEMPTS          9
#DEFINE STOPPING          10
#DEFINE AGREE             11
#DEFINE AGREED            12

' Opcodes, and one job that is none.
#DEFINE NOP               0
#DEFINE INI               1
#DEFINE SQG               2
#DEFINE MSR               4
#DEFINE ENT               5
#DEFINE ENM               6
#DEFINE PMG               7
#DEFINE CHECK             16

' Outcomes.
#DEFINE UNKNOWN_FAILURE             0
#DEFINE HARDWARE_FAILURE            1
#DEFINE UNSUPPORTED_REQUEST         2
#DEFINE INVALID_QUBIT               3
#DEFINE ENTANGLEMENT_FAILURE        4
#DEFINE ENTANGLEMENT_SYNC_FAILURE   5
#DEFINE SUCCESS_ZERO                8
#DEFINE SUCCESS_ONE                 12

' Entries of the AWG's waveform table (sequences/waveform_table.py).
#DEFINE FIRST_ROTATION    32
#DEFINE INI_ENTRY         96
#DEFINE READOUT_ENTRY     97

' Parameters, set by the host while no instruction is executed (instruments/nv_controller.py).
#DEFINE cr_us             DATA_20[1]
#DEFINE cr_threshold      DATA_20[2]
#DEFINE repump_us         DATA_20[3]
#DEFINE max_repumps       DATA_20[4]
#DEFINE pump_us           DATA_20[5]
#DEFINE readout_us        DATA_20[6]
#DEFINE play_timeout_us   DATA_20[7]
#DEFINE sync_window_us    DATA_20[8]
#DEFINE start_delay_us    DATA_20[9]
#DEFINE batch_us          DATA_20[10]
#DEFINE agree_timeout_us  DATA_20[11]
#DEFINE alpha_entry       DATA_20[12]
#DEFINE links             DATA_20[13]
#DEFINE log_shots         DATA_20[14]
' What a click of each detector heralds: the outcome, and 1 + the code of the Bell state.
#DEFINE herald_outcome    DATA_23
#DEFINE herald_detail     DATA_24

#DEFINE e_readout_volts   DATA_21[1]
#DEFINE e_cr_volts        DATA_21[2]
#DEFINE a_cr_volts        DATA_21[3]
#DEFINE a_pump_volts      DATA_21[4]
#DEFINE repump_volts      DATA_21[5]

' For the host to look at.
#DEFINE ticks             PAR_1
#DEFINE corrupted         PAR_2
#DEFINE state             PAR_3
#DEFINE instructions      PAR_4
#DEFINE hardware_failures PAR_5
#DEFINE mismatches        PAR_6
#DEFINE checks            PAR_7
#DEFINE failed_checks     PAR_8
#DEFINE batches           PAR_9
#DEFINE heralds           PAR_10
#DEFINE request           PAR_20
#DEFINE program_version   PAR_80

' First photon of every readout, counts of every first charge check, and for every first check
' after a readout twice the number of readouts it is for, plus 1 if it passed.
#DEFINE photon_log        DATA_31
#DEFINE check_log         DATA_32
#DEFINE charge_log        DATA_33

DIM DATA_20[40] AS LONG
DIM DATA_21[10] AS FLOAT
DIM DATA_23[2] AS LONG
DIM DATA_24[2] AS LONG
DIM DATA_31[LOG_LENGTH] AS LONG AS FIFO
DIM DATA_32[LOG_LENGTH] AS LONG AS FIFO
DIM DATA_33[LOG_LENGTH] AS LONG AS FIFO

' Time in events, and where in the tick this event is.
DIM now, phase, due, started AS LONG
' The frames, as the slave's end of qnodeos/qdevice/endpoint.py has it.
DIM received, command, seen, is_seen, upper, word, sequence, acknowledge, response AS LONG
DIM in_session, accepted, answered, busy, was_idle, outcome, detail AS LONG
' The instruction, and what has been found out for it.
DIM job, opcode, argument, qubit, other AS LONG
DIM counts, tries, readouts, detector, herald_code, first_photon AS LONG
' The AWG and the other lines.
DIM toggle, protecting, inputs, has_edge, is_played AS LONG
DIM basis[MAX_BASIS] AS LONG
DIM basis_length, basis_next AS LONG

SUB answer(what, more)
  outcome = what
  detail = more
  answered = accepted
  busy = 0
  is_seen = 0
  job = NOP
  state = IDLE
ENDSUB

' The check that the host asked for; frames that came meanwhile were not looked at.
SUB end_check()
  request = 0
  is_seen = 0
  job = NOP
  state = IDLE
ENDSUB

SUB fail_hardware()
  INC(hardware_failures)
  dark()
  P2_DIGOUT(DIO_MODULE, READY_LINE, 0)
  P2_DIGOUT(DIO_MODULE, SUCCESS_LINE, 0)
  IF (job = CHECK) THEN
    end_check()
  ELSE
    answer(HARDWARE_FAILURE, 0)
  ENDIF
ENDSUB

' Command the AWG: the lines of the word first, the toggle line when they are stable.
SUB send_word(bits)
  ' Edges of before are none of this word's.
  has_edge = P2_DIGIN_EDGE(DIO_MODULE, 1)
  has_edge = 0
  P2_DIGOUT_BITS(DIO_MODULE, bits, NOT(bits) AND AWG_LINES)
  toggle = 1 - toggle
  CPU_SLEEP(5)
  P2_DIGOUT(DIO_MODULE, AWG_TOGGLE_LINE, toggle)
  due = now + play_timeout_us
ENDSUB

' Whether the AWG has played the last word and can take the next (is_played = 1).
SUB look_at_awg()
  IF ((P2_DIGIN_EDGE(DIO_MODULE, 1) AND AWG_PLAYED) <> 0) THEN has_edge = 1
  inputs = P2_DIGIN_LONG(DIO_MODULE)
  is_played = 0
  IF (has_edge = 1) THEN
    IF ((inputs AND AWG_ACKNOWLEDGE) = toggle * AWG_ACKNOWLEDGE) THEN is_played = 1
  ENDIF
ENDSUB

SUB check_charge()
  ' What the AWG's marker lets through when it pumps the spin, later.
  light(GATED_A_DAC, a_pump_volts)
  light(E_DAC, e_cr_volts)
  light(A_DAC, a_cr_volts)
  start_counting()
  due = now + cr_us
  state = CHARGE
ENDSUB

SUB read_out()
  light(E_DAC, e_readout_volts)
  start_counting()
  first_photon = -1
  INC(readouts)
  started = now
  due = now + readout_us
  state = READOUT
ENDSUB

' Ask the other node for a batch.
SUB get_ready()
  P2_DIGOUT(DIO_MODULE, CPLD_RESET_LINE, 1)
  P2_DIGOUT(DIO_MODULE, READY_LINE, 1)
  due = now + sync_window_us
  state = NEIGHBOUR
ENDSUB

SUB begin_instruction()
  INC(instructions)
  opcode = word AND 0Fh
  argument = SHIFT_RIGHT(word, 4) AND 0FFh
  qubit = SHIFT_RIGHT(word, 12) AND 0Fh
  other = SHIFT_RIGHT(word, 16) AND 0Fh
  job = opcode
  herald_code = 0
  IF ((opcode = INI) OR (opcode = SQG) OR (opcode = MSR) OR (((opcode = ENT) OR (opcode = ENM) OR (opcode = PMG)) AND (links > 0))) THEN
    IF (qubit <> 0) THEN
      answer(INVALID_QUBIT, 0)
    ELSE
      SELECTCASE opcode
        CASE INI
          tries = 0
          check_charge()
        CASE SQG
          ' `other` halves the unit of the angle; the waveform table has the whole one only.
          IF ((argument > 63) OR (other > 0)) THEN
            answer(UNSUPPORTED_REQUEST, 0)
          ELSE
            send_word((FIRST_ROTATION + argument) OR AWG_KEEP)
            protecting = 1
            state = PLAYING
          ENDIF
        CASE MSR
          send_word(READOUT_ENTRY)
          protecting = 0
          state = PLAYING
        CASE ENT, ENM
          IF (argument >= links) THEN
            answer(UNSUPPORTED_REQUEST, 0)
          ELSE
            tries = 0
            check_charge()
          ENDIF
        CASE PMG
          IF ((other = 0) AND (argument < 64)) THEN basis_length = 0
          IF ((argument > 63) OR (other > 1) OR (basis_length = MAX_BASIS)) THEN
            answer(UNSUPPORTED_REQUEST, 0)
          ELSE
            IF ((argument AND 31) <> 0) THEN
              INC(basis_length)
              basis[basis_length] = argument
            ENDIF
            answer(SUCCESS_ZERO, 0)
          ENDIF
      ENDSELECT
    ENDIF
  ELSE
    answer(UNSUPPORTED_REQUEST, 0)
  ENDIF
ENDSUB

' A frame that is new: a session, an instruction, or nothing.
SUB take_frame()
  upper = SHIFT_RIGHT(command, 10)
  IF ((frame_check(upper) XOR COMMAND_CONSTANT) <> (command AND CRC_MASK)) THEN
    INC(corrupted)
  ELSE
    seen = command
    is_seen = 1
    ' A job that ended in this event has not looked at the frame: its repetition is new.
    IF ((was_idle = 0) AND (job = NOP)) THEN is_seen = 0
    IF (was_idle = 1) THEN
      word = SHIFT_RIGHT(upper, 2)
      sequence = SHIFT_RIGHT(upper, 1) AND 1
      acknowledge = upper AND 1
      IF ((word AND SESSION_MASK) = SESSION_BITS) THEN
        in_session = 1
        accepted = 0
        answered = 0
        outcome = SHIFT_RIGHT(word, 4) AND 0Fh
        detail = DETAIL_SESSION
      ELSE
        IF ((in_session = 1) AND ((word AND 0Fh) <> NOP) AND (sequence <> accepted) AND (acknowledge = accepted)) THEN
          accepted = sequence
          busy = 1
          begin_instruction()
        ENDIF
      ENDIF
    ENDIF
  ENDIF
ENDSUB

LOWINIT:
  P2_DIGPROG(DIO_MODULE, OUTPUT_GROUPS)
  P2_DIGOUT_LONG(DIO_MODULE, 0)
  P2_CNT_ENABLE(COUNTER_MODULE, 0)
  P2_CNT_MODE(COUNTER_MODULE, PHOTON_COUNTER, 00001000b)
  dark()
  frames_prepare()
  link_open()

INIT:
  program_version = VERSION
  ticks = 0
  corrupted = 0
  instructions = 0
  hardware_failures = 0
  mismatches = 0
  checks = 0
  failed_checks = 0
  batches = 0
  heralds = 0
  request = 0
  now = 0
  phase = -1
  is_seen = 0
  in_session = 0
  accepted = 0
  answered = 0
  busy = 0
  outcome = 0
  detail = DETAIL_BOOT
  job = NOP
  state = IDLE
  readouts = 0
  toggle = 0
  protecting = 0
  basis_length = 0
  FIFO_CLEAR(31)
  FIFO_CLEAR(32)
  FIFO_CLEAR(33)

EVENT:
  INC(now)
  ' The states come first and the frames last: what a state does must happen at the same time in
  ' both nodes, to the nanosecond for the first attempt, whether a frame has come or not.
  was_idle = 0
  IF ((busy = 0) AND (job = NOP)) THEN was_idle = 1

  SELECTCASE state
    CASE IDLE
      ' Nothing to do.

    CASE CHARGE
      IF (now = due) THEN
        counts = counts_so_far()
        light(E_DAC, 0)
        light(A_DAC, 0)
        INC(checks)
        IF (counts < cr_threshold) THEN INC(failed_checks)
        IF (tries = 0) THEN
          IF ((log_shots = 1) AND (FIFO_EMPTY(32) > 0)) THEN check_log = counts
          ' One entry for all readouts since the last check, however many they are.
          IF ((readouts > 0) AND (FIFO_EMPTY(33) > 0)) THEN
            IF (counts < cr_threshold) THEN
              charge_log = 2 * readouts
            ELSE
              charge_log = 2 * readouts + 1
            ENDIF
          ENDIF
          readouts = 0
        ENDIF
        IF (counts < cr_threshold) THEN
          INC(tries)
          IF (tries > max_repumps) THEN
            fail_hardware()
          ELSE
            light(REPUMP_DAC, repump_volts)
            due = now + repump_us
            state = REPUMP
          ENDIF
        ELSE
          SELECTCASE job
            CASE INI
              send_word(INI_ENTRY)
              protecting = 0
              state = PLAYING
            CASE CHECK
              end_check()
            CASEELSE
              IF (protecting = 1) THEN
                send_word(READOUT_ENTRY)
                protecting = 0
                state = PLAYING
              ELSE
                get_ready()
              ENDIF
          ENDSELECT
        ENDIF
      ENDIF

    CASE REPUMP
      IF (now = due) THEN
        light(REPUMP_DAC, 0)
        check_charge()
      ENDIF

    CASE PUMP
      IF (now = due) THEN
        answer(SUCCESS_ZERO, 0)
      ENDIF

    CASE PLAYING
      look_at_awg()
      IF (is_played = 1) THEN
        SELECTCASE job
          CASE SQG
            answer(SUCCESS_ZERO, 0)
          CASE MSR
            read_out()
          CASE INI
            due = now + pump_us
            state = PUMP
          CASEELSE
            IF (herald_code > 0) THEN
              ' ENM with a pair: the gates before the measurement, one by one, then READOUT.
              IF (basis_next > basis_length + 1) THEN
                read_out()
              ELSE
                IF (basis_next > basis_length) THEN
                  send_word(READOUT_ENTRY)
                  protecting = 0
                ELSE
                  send_word((FIRST_ROTATION + basis[basis_next]) OR AWG_KEEP)
                ENDIF
                INC(basis_next)
              ENDIF
            ELSE
              get_ready()
            ENDIF
        ENDSELECT
      ELSE
        IF (now = due) THEN fail_hardware()
      ENDIF

    CASE READOUT
      counts = counts_so_far()
      IF (counts > 0) THEN
        light(E_DAC, 0)
        ' Whole microseconds: it came since the event before.
        first_photon = now - started - 1
        state = HELD
      ENDIF
      IF (now = due) THEN state = HELD

    CASE HELD
      ' The rest of the readout's time is waited out: a result takes the same time whatever it is.

    CASE NEIGHBOUR
      P2_DIGOUT(DIO_MODULE, CPLD_RESET_LINE, 0)
      inputs = P2_DIGIN_LONG(DIO_MODULE)
      IF ((inputs AND PEER_READY) <> 0) THEN
        ' Both nodes see the later of the two lines in the same event.
        due = now + start_delay_us
        state = COUNTDOWN
      ELSE
        IF (now = due) THEN
          P2_DIGOUT(DIO_MODULE, READY_LINE, 0)
          answer(ENTANGLEMENT_SYNC_FAILURE, 0)
        ENDIF
      ENDIF

    CASE COUNTDOWN
      IF (now = due) THEN
        P2_DIGOUT(DIO_MODULE, READY_LINE, 0)
        send_word(alpha_entry OR AWG_ATTEMPT)
        INC(batches)
        due = now + batch_us
        state = ATTEMPTS
      ENDIF

    CASE ATTEMPTS, STOPPING
      IF (state = STOPPING) THEN
        look_at_awg()
      ELSE
        inputs = P2_DIGIN_LONG(DIO_MODULE)
      ENDIF
      IF ((inputs AND HERALD) <> 0) THEN
        ' The AWG has seen it too, and protects the spin.
        INC(heralds)
        protecting = 1
        detector = 1
        IF ((inputs AND WHICH_DETECTOR) <> 0) THEN detector = 2
        P2_DIGOUT(DIO_MODULE, SUCCESS_LINE, 1)
        due = now + agree_timeout_us
        state = AGREE
      ELSE
        IF (state = STOPPING) THEN
          IF (is_played = 1) THEN
            answer(ENTANGLEMENT_FAILURE, 0)
          ELSE
            IF (now = due) THEN fail_hardware()
          ENDIF
        ELSE
          IF (now = due) THEN
            send_word(READOUT_ENTRY)
            state = STOPPING
          ENDIF
        ENDIF
      ENDIF

    CASE AGREE
      inputs = P2_DIGIN_LONG(DIO_MODULE)
      IF ((inputs AND PEER_SUCCESS) <> 0) THEN
        ' Long enough for the other node to see our line as well.
        due = now + 3
        state = AGREED
      ELSE
        IF (now = due) THEN
          P2_DIGOUT(DIO_MODULE, SUCCESS_LINE, 0)
          INC(mismatches)
          answer(ENTANGLEMENT_SYNC_FAILURE, 0)
        ENDIF
      ENDIF

    CASE AGREED
      IF (now = due) THEN
        P2_DIGOUT(DIO_MODULE, SUCCESS_LINE, 0)
        IF (job = ENT) THEN
          answer(herald_outcome[detector], 0)
        ELSE
          herald_code = herald_detail[detector]
          IF (basis_length > 0) THEN
            send_word((FIRST_ROTATION + basis[1]) OR AWG_KEEP)
          ELSE
            send_word(READOUT_ENTRY)
            protecting = 0
          ENDIF
          basis_next = 2
          state = PLAYING
        ENDIF
      ENDIF

    CASEELSE
      ' No transition leads here.
      answer(UNKNOWN_FAILURE, 0)
  ENDSELECT

  IF (state = HELD) THEN
    IF (now = due) THEN
      light(E_DAC, 0)
      P2_CNT_ENABLE(COUNTER_MODULE, 0)
      IF ((log_shots = 1) AND (FIFO_EMPTY(31) > 0)) THEN photon_log = first_photon
      IF (first_photon >= 0) THEN
        answer(SUCCESS_ZERO, herald_code)
      ELSE
        answer(SUCCESS_ONE, herald_code)
      ENDIF
    ENDIF
  ENDIF

  INC(phase)
  IF (phase = TICK_US) THEN
    phase = 0
    INC(ticks)
  ENDIF
  link_receive(received, command)
  IF (received = 1) THEN
    ' The QNPU's clock drifts against ours: its frames say where a tick begins.
    IF (phase > TICK_US / 2) THEN INC(ticks)
    phase = 0
    IF ((is_seen = 0) OR (command <> seen)) THEN take_frame()
  ENDIF
  IF ((request = 1) AND (job = NOP) AND (busy = 0)) THEN
    job = CHECK
    tries = 0
    check_charge()
  ENDIF

  IF (phase = TICK_US - 1) THEN
    ' The next frame carries the number of the next tick.
    upper = SHIFT_LEFT(outcome, 18) OR SHIFT_LEFT(detail, 15) OR SHIFT_LEFT((ticks + 1) AND 0FFFh, 3)
    upper = upper OR SHIFT_LEFT(busy, 2) OR SHIFT_LEFT(answered, 1) OR accepted
    response = SHIFT_LEFT(upper, 10) OR (frame_check(upper) XOR RESPONSE_CONSTANT)
    link_send(response)
  ENDIF

FINISH:
  dark()
  P2_DIGOUT_LONG(DIO_MODULE, 0)
  state = IDLE
