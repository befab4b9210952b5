/**
 * What every thread of a session shares: the stop word, the first error, the phase, and the
 * descriptors that must be shut down to wake whoever is blocked on them.
 *
 * The first error wins because later ones are its consequences: once one channel fails, the sockets
 * of all others are shut down under them. Descriptors are closed only after all workers are joined;
 * closing earlier would neither wake a blocked thread nor keep the number from being reused.
 *
 * @module
 */
import { close, shutdown } from "../../ffi/libc.ts";
import { Shutdown } from "../../ffi/linux.ts";
import {
  CancelledError,
  fromErrorRecord,
  toErrorRecord,
  type ErrorContext,
  type ErrorRecord,
  MultifdError,
} from "../errors.ts";
import { CHANNELS_MAX, WAIT_TICK_MS } from "../limits.ts";
import type { ActiveSession } from "./semaphore.ts";

const STOP = 0; // 0 running, 1 stopping; set once by any thread, never cleared
const OUTCOME = 1; // OPEN, then exactly one of the others; whoever changes it from OPEN owns the record
const RECORD_BYTES = 2; // length of the error record; written before OUTCOME becomes FAILED
const PHASE = 3; // index into PHASES, or behind them; written by the thread that runs the session
const COMPLETED = 4; // 1 = the session has done what it is for
const SPEAKING = 5; // 1 = the thread of the main connections uses them; written by that thread
const THREADS_LEFT = 6; // 1 = a thread did not end in time and may still be at work
const ACTIVITY = 16; // counts moves of bytes, on a cache line of its own; some may get lost
const DESCRIPTORS = 32; // one word each, fd + 1, 0 = none; written by the thread that opened it
const RECORD_BYTES_MAX = 4096;
const PHASE_NAME_BYTES_MAX = 16;

const OPEN = 0;
const WRITING = 1;
const FAILED = 2;
const FINISHED = 3;

/** What every session can be doing, in order. One that goes on afterwards has a phase of its own. */
const PHASES: readonly string[] = ["start", "connect", "setup", "transfer", "complete", "end"];

/** Descriptor place of the main connection. */
export const MAIN_DESCRIPTOR = 0;
/** Descriptor place of a listening socket. */
export const LISTENER_DESCRIPTOR = 1;
/** Descriptor place of channel 0; the others follow. */
export const CHANNEL_DESCRIPTOR = 2;
/** Places of one side; those of a second one, in a session that receives and sends, come behind them. */
export const SIDE_DESCRIPTORS: number = CHANNEL_DESCRIPTOR + CHANNELS_MAX;

const MAIN_PLACES: readonly number[] = [MAIN_DESCRIPTOR, SIDE_DESCRIPTORS + MAIN_DESCRIPTOR];
const DESCRIPTOR_COUNT = 2 * SIDE_DESCRIPTORS;
const RECORD_AT = (DESCRIPTORS + DESCRIPTOR_COUNT) * 4;
const PHASE_NAME_AT = RECORD_AT + RECORD_BYTES_MAX;
const CONTROL_BYTES = PHASE_NAME_AT + PHASE_NAME_BYTES_MAX;

/** See the module comment. Each thread makes its own object over the same buffer. */
export class SessionControl implements ActiveSession {
  /** The shared state; hand it to another thread to attach there. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #record: Uint8Array;
  /** A phase that is none of all sessions; written before PHASE says so, and once. */
  readonly #phaseName: Uint8Array;
  /** What is behind an error that was recorded through this object; it does not cross threads. */
  #cause: unknown;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(CONTROL_BYTES)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#record = new Uint8Array(buffer, RECORD_AT, RECORD_BYTES_MAX);
    this.#phaseName = new Uint8Array(buffer, PHASE_NAME_AT, PHASE_NAME_BYTES_MAX);
  }

  get stopping(): boolean {
    return Atomics.load(this.#words, STOP) !== 0;
  }

  get activity(): number {
    return Atomics.load(this.#words, ACTIVITY);
  }

  noteActivity(): void {
    this.#words[ACTIVITY]++;
  }

  /** One of {@linkcode PHASES}, or the one that the session has besides, in small letters. */
  get phase(): string {
    const known = PHASES[Atomics.load(this.#words, PHASE)];
    return known ?? new TextDecoder().decode(this.#phaseName.slice()).replaceAll("\0", "");
  }

  set phase(phase: string) {
    const index = PHASES.indexOf(phase);
    if (index < 0) this.#phaseName.set(new TextEncoder().encode(phase));
    Atomics.store(this.#words, PHASE, index < 0 ? PHASES.length : index);
  }

  /**
   * Records `error` if nothing ended the session before, and stops it. Main connections that are
   * in use stay open, see {@linkcode speaking}.
   */
  fail(error: unknown, context: ErrorContext = {}): void {
    this.record(error, context);
    this.#stop(true);
  }

  /**
   * Runs a step of the thread that has the main connections. A failure meanwhile, of whatever thread,
   * leaves them open until the step ends, so that it can say why, or hear it; whoever is blocked on
   * one of them looks at the stop word within a tick.
   */
  speaking<Result>(step: () => Result): Result {
    Atomics.store(this.#words, SPEAKING, 1);
    try {
      return step();
    } finally {
      // Pairs with the order in `#stop`: one of the two sees what the other has written.
      Atomics.store(this.#words, SPEAKING, 0);
      if (this.stopping) for (const place of MAIN_PLACES) this.#shutDown(place);
    }
  }

  /** Records `error` if nothing ended the session before, and leaves stopping to another thread. */
  record(error: unknown, context: ErrorContext = {}): void {
    if (Atomics.compareExchange(this.#words, OUTCOME, OPEN, WRITING) === OPEN) {
      this.#write(error, context);
    }
  }

  /** Ends the session as successful, unless it has failed; later failures are consequences. */
  finish(): void {
    Atomics.compareExchange(this.#words, OUTCOME, OPEN, FINISHED);
    this.#stop(false);
  }

  /**
   * Whether the session has done what it is for. One that was ended early has neither this nor an
   * error.
   */
  get completed(): boolean {
    return Atomics.load(this.#words, COMPLETED) !== 0;
  }

  /** Says so; what happens afterwards only winds it down. False takes it back. */
  noteCompleted(completed = true): void {
    Atomics.store(this.#words, COMPLETED, completed ? 1 : 0);
  }

  /** Whether a thread did not end in time: what it works on must stay where it is. */
  get threadsLeft(): boolean {
    return Atomics.load(this.#words, THREADS_LEFT) !== 0;
  }

  /** Says so, for good. */
  noteThreadsLeft(): void {
    Atomics.store(this.#words, THREADS_LEFT, 1);
  }

  /**
   * Records `error` as what has ended the session, even if another thread has failed meanwhile:
   * such a failure is taken for a consequence. Only a cancel stays.
   */
  supersede(error: unknown, context: ErrorContext = {}): void {
    this.record(error, context);
    if (this.error instanceof CancelledError) return;
    if (Atomics.compareExchange(this.#words, OUTCOME, FAILED, WRITING) !== FAILED) return;
    this.#write(error, context);
  }

  /** The error that ended the session, if one did. */
  get error(): MultifdError | undefined {
    // Another thread has failed first and is about to say how; that is what counts.
    Atomics.wait(this.#words, OUTCOME, WRITING, WAIT_TICK_MS);
    // Pairs with the store in `record`: the record is complete before the outcome says so.
    if (Atomics.load(this.#words, OUTCOME) !== FAILED) return undefined;
    const bytes = this.#record.slice(0, this.#words[RECORD_BYTES]);
    const record = JSON.parse(new TextDecoder().decode(bytes)) as ErrorRecord;
    return fromErrorRecord(record, this.#cause);
  }

  /** Throws the error that ended the session, if one did. */
  throwIfFailed(): void {
    const { error } = this;
    if (error !== undefined) throw error;
  }

  /**
   * Registers a socket to be shut down on stop. Registering before looking at the stop word again
   * is the caller's duty: then either it sees the stop or the stop sees the socket.
   */
  registerDescriptor(place: number, fd: number): void {
    Atomics.store(this.#words, DESCRIPTORS + place, fd + 1);
    if (this.stopping) shutdown(fd, Shutdown.BOTH);
  }

  /** Descriptor at `place`, or -1. */
  descriptorAt(place: number): number {
    return Atomics.load(this.#words, DESCRIPTORS + place) - 1;
  }

  /** Closes every descriptor; only after all threads of the session have ended. */
  closeDescriptors(): void {
    for (let place = 0; place < DESCRIPTOR_COUNT; place++) this.closeDescriptor(place);
  }

  /** Closes one descriptor whose only user is the calling thread. */
  closeDescriptor(place: number): void {
    const fd = Atomics.exchange(this.#words, DESCRIPTORS + place, 0) - 1;
    if (fd >= 0) close(fd);
  }

  /** Of whoever owns the record. */
  #write(error: unknown, context: ErrorContext): void {
    this.#cause = error instanceof MultifdError ? error.cause : error;
    const record = toErrorRecord(error, { phase: this.phase, ...context });
    const { written } = encodeInto(JSON.stringify(record), this.#record);
    this.#words[RECORD_BYTES] = written;
    Atomics.store(this.#words, OUTCOME, FAILED); // pairs with the load in `error`
    Atomics.notify(this.#words, OUTCOME);
  }

  /** @param spares Whether main connections that are in use stay open. */
  #stop(spares: boolean): void {
    Atomics.store(this.#words, STOP, 1);
    const spared = spares && Atomics.load(this.#words, SPEAKING) !== 0;
    for (let place = 0; place < DESCRIPTOR_COUNT; place++) {
      if (!(spared && MAIN_PLACES.includes(place))) this.#shutDown(place);
    }
  }

  #shutDown(place: number): void {
    const fd = this.descriptorAt(place);
    // A fork or a slow closing peer must not keep our threads; not-a-socket answers are fine.
    if (fd >= 0) shutdown(fd, Shutdown.BOTH);
  }
}

function encodeInto(text: string, target: Uint8Array): { written: number } {
  // TextEncoder refuses shared memory in some runtimes, and an over-long message must stay JSON.
  const bytes = new TextEncoder().encode(text);
  if (bytes.byteLength <= target.byteLength) {
    target.set(bytes);
    return { written: bytes.byteLength };
  }
  const record = JSON.parse(text) as ErrorRecord;
  return encodeInto(JSON.stringify({ ...record, message: record.message.slice(0, 500) }), target);
}
