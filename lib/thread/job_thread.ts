/**
 * The maker's end of a thread and its jobs.
 *
 * @module
 */
import { startThread, type NativeThread } from "../../ffi/runtime/runtime.ts";
import { SystemError } from "../errors.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { Thread, type ThreadLine } from "./thread.ts";
import {
  JobState,
  type MakerMessage,
  type ThreadJob,
  type ThreadLease,
  type ThreadMessage,
} from "./thread_messages.ts";
import { programUrls, type ThreadProgram } from "./thread_program.ts";

interface JobInHand {
  readonly thread: Thread;
  readonly control: SessionControl;
  readonly state: Int32Array;
}

/** A thread on loan. */
export interface LentThread {
  readonly lease: ThreadLease;
  /** To be called when the borrower has ended: a thread that is still at work is ended. */
  readonly takeBack: () => void;
}

/** A thread. Belongs to the thread that made it. */
export class JobThread implements ThreadLine {
  readonly program: ThreadProgram;
  /** What it has done so far, and therefore has the code for. */
  readonly roles: Set<string> = new Set();
  readonly #native: NativeThread;
  readonly #onIdle: (thread: JobThread) => void;
  readonly #jobs = new Map<number, JobInHand>();
  readonly #gone = Promise.withResolvers<void>();
  #last = 0;
  #refs = 0;
  #spent = false;
  #terminated = false;

  /**
   * Starts the thread; it does not keep the process alive.
   *
   * @param onIdle Called whenever its last job has ended, unless it cannot have another one.
   * @throws {SystemError} when the machine has no memory, or no number, for one thread more.
   */
  constructor(program: ThreadProgram, onIdle: (thread: JobThread) => void) {
    this.program = program;
    this.#onIdle = onIdle;
    try {
      this.#native = startThread(programUrls()[program], {
        message: (message) => this.#take(message as ThreadMessage),
        failed: (error) => this.#fail(error),
        ended: () => this.#end(),
      });
    } catch (cause) {
      const message = "Cannot start a thread: there is no memory, or no number, for one more";
      throw new SystemError(message, { errno: "EAGAIN", cause });
    }
    this.#native.unref();
  }

  /** Whether it has ended, or is about to. */
  get terminated(): boolean {
    return this.#terminated;
  }

  /** Resolves when it has ended. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /**
   * Has the thread carry out a job, when it has carried out those before.
   *
   * @param lend Lends it threads; called once this thread cannot be had by anybody else.
   */
  run(
    job: ThreadJob,
    control: SessionControl,
    lend: () => readonly ThreadLease[] = () => [],
  ): Thread {
    const { number, thread, state } = this.#open(job.role, control);
    const leases = lend();
    Atomics.store(new Int32Array(state), 0, JobState.GIVEN);
    const programs = programUrls();
    const ports = leases.map(({ port }) => port);
    this.#post(
      { kind: "job", number, job, control: control.buffer, state, programs, leases },
      ports,
    );
    return thread;
  }

  /**
   * Lends the thread for one job.
   *
   * @param role Of the job.
   * @param control Session of the job, which hears of the thread's failures.
   */
  lend(role: string, control: SessionControl): LentThread {
    const { number, thread, state } = this.#open(role, control);
    const { port1: port, port2 } = new MessageChannel();
    this.#post({ kind: "lend", port: port2 }, [port2]);
    const words = new Int32Array(state);
    return {
      lease: { program: this.program, number, port, state },
      takeBack: () => {
        if (thread.ended || Atomics.load(words, 0) === JobState.NONE) this.giveBack(number);
        else this.terminate();
      },
    };
  }

  postLetter(number: number, message: unknown): void {
    this.#post({ kind: "message", number, message });
  }

  ref(): void {
    if (this.#refs++ === 0) this.#native.ref();
  }

  unref(): void {
    if (--this.#refs === 0) this.#native.unref();
  }

  giveBack(number: number): void {
    const inHand = this.#jobs.get(number);
    if (inHand === undefined) return; // its end was heard of before
    this.#jobs.delete(number);
    if (Atomics.load(inHand.state, 0) === JobState.SPENT) this.#spent = true;
    inHand.thread.exit();
    if (this.#jobs.size > 0 || this.#terminated) return;
    if (this.#spent) this.terminate();
    else this.#onIdle(this);
  }

  terminate(): void {
    if (this.#terminated) return;
    this.#terminated = true;
    this.#native.terminate();
  }

  #open(
    role: string,
    control: SessionControl,
  ): { number: number; thread: Thread; state: SharedArrayBuffer } {
    this.roles.add(role);
    const number = ++this.#last;
    const state = new SharedArrayBuffer(4);
    const words = new Int32Array(state);
    const thread = new Thread(this, number, words);
    this.#jobs.set(number, { thread, control, state: words });
    return { number, thread, state };
  }

  #post(message: MakerMessage, transfer: readonly MessagePort[] = []): void {
    this.#native.postMessage(message, transfer);
  }

  #take(message: ThreadMessage): void {
    if (message.kind === "ended") return this.giveBack(message.number);
    this.#jobs.get(message.number)?.thread.receive(message.message);
  }

  /** The program did not load, or something that a job had started threw when nobody waited for it. */
  #fail(error: Error): void {
    for (const { control } of this.#jobs.values()) control.fail(error);
    this.terminate();
  }

  #end(): void {
    this.#terminated = true;
    const jobs = [...this.#jobs.values()];
    this.#jobs.clear();
    for (const { thread } of jobs) thread.exit();
    this.#gone.resolve();
  }
}
