/**
 * The owner's end of a thread that serves it: calls with typed results, reports, and an end in
 * bounded time. Keeps the process alive exactly while somebody waits for the thread, and turns an
 * abort signal into a stop.
 *
 * @module
 */
import { CancelledError, MultifdError } from "../errors.ts";
import { JOIN_LIMIT_MS } from "../limits.ts";
import { SessionControl } from "../sync/session_control.ts";
import { OwnerGate } from "./owner_gate.ts";
import type {
  Functions,
  NameOf,
  ResultOf,
  ServiceCommand,
  ServiceHandle,
  ServiceJob,
  ServiceMessage,
  Unstarted,
} from "./service.ts";
import { lendThreads, type ThreadCrew } from "./idle_threads.ts";
import type { LentThread } from "./job_thread.ts";
import type { Thread } from "./thread.ts";
import { WorkerGroup } from "./worker_group.ts";

/** Whose thread it is. */
interface ServiceOwner {
  /** For the errors that begin here. */
  readonly side: "source" | "destination";
  /** Cancels whatever the thread does. */
  readonly signal?: AbortSignal | undefined;
}

/** See the module comment. `Reports` are called in the order in which the thread made them. */
export class ServiceThread<Calls extends Functions<Calls>, Reports extends Functions<Reports>> {
  /** Shared with the thread. */
  readonly control: SessionControl = new SessionControl();
  readonly #gate = new OwnerGate(undefined, this.control);
  readonly #owner: ServiceOwner;
  readonly #reports: Reports;
  readonly #worker: Thread;
  readonly #exited = Promise.withResolvers<void>();
  /** Calls without an answer, in order. */
  readonly #calls: PromiseWithResolvers<unknown>[] = [];
  #waiting = 0;
  #stopped: Promise<void> | undefined;

  /**
   * Starts the thread.
   *
   * @param reports What becomes of reports. What one throws ends the session.
   * @param crews Threads that the job is known to need; they start at the same time.
   */
  constructor(
    job: Unstarted<ServiceJob>,
    owner: ServiceOwner,
    reports: Reports,
    crews: readonly ThreadCrew[] = [],
  ) {
    this.#owner = owner;
    this.#reports = reports;
    const service: ServiceHandle = {
      control: this.control.buffer,
      gate: this.#gate.buffer,
    };
    let lent: readonly LentThread[] = [];
    this.#worker = new WorkerGroup(this.control).start({ ...job, service }, "entry", () => {
      lent = crews.flatMap((crew) => lendThreads(crew, this.control));
      return lent.map(({ lease }) => lease);
    });
    this.#worker.onExit(() => {
      for (const { takeBack } of lent) takeBack();
    });
    this.#worker.onExit(() => this.#exited.resolve());
    this.#worker.onMessage((message) => this.#take(message as ServiceMessage));
    owner.signal?.addEventListener("abort", this.#cancel, { once: true });
    if (owner.signal?.aborted) this.#cancel();
  }

  /**
   * Disposes `resource`, which the session's threads use, when the last of them has ended. Memory
   * that a thread may still be at work on is kept for good: better a leak than a crash.
   */
  keep(resource: Disposable): void {
    this.#worker.onExit(() => {
      if (!this.control.threadsLeft) resource[Symbol.dispose]();
    });
  }

  /** Has the thread do something after all that came before, and waits for the result. */
  call<Name extends NameOf<Calls>>(
    name: Name,
    ...values: Parameters<Calls[Name]>
  ): Promise<ResultOf<Calls, Name>> {
    return this.during(this.post(name, ...values));
  }

  /** As {@linkcode call} for a result that nobody need ever wait for; see {@linkcode during}. */
  post<Name extends NameOf<Calls>>(
    name: Name,
    ...values: Parameters<Calls[Name]>
  ): Promise<ResultOf<Calls, Name>> {
    const answer = Promise.withResolvers<unknown>();
    answer.promise.catch(() => {}); // the session has the failure
    if (this.#stopped === undefined) {
      this.#calls.push(answer);
      this.#worker.postMessage({ kind: "call", name, values } satisfies ServiceCommand);
    } else answer.reject(this.failure());
    return answer.promise as Promise<ResultOf<Calls, Name>>;
  }

  /** Waits for `result` or the end of the thread, keeping the process alive meanwhile. */
  async during<Result>(result: Promise<Result>): Promise<Result> {
    if (this.#waiting++ === 0) this.#worker.ref();
    try {
      const ended = this.#exited.promise.then(() => {
        throw this.failure();
      });
      return await Promise.race([result, ended]);
    } finally {
      if (--this.#waiting === 0) this.#worker.unref();
    }
  }

  /**
   * Waits for the result of what the session is for, and whether it has done that. One that is ended
   * too early has no error, and a part must not be taken for the whole.
   */
  async completed(result: Promise<unknown>): Promise<void> {
    await this.during(result).catch(() => {});
    const { error, completed } = this.control;
    if (error !== undefined || !completed) throw this.failure();
  }

  /** Why the session ended. */
  failure(): MultifdError {
    const { side } = this.#owner;
    return (
      this.control.error ??
      new MultifdError("ERR_MULTIFD_STOPPED", "Cannot go on: the session has ended", { side })
    );
  }

  /** Ends the session and its thread, and closes what it may have left open. Safe to call twice. */
  stop(): Promise<void> {
    return (this.#stopped ??= this.#end());
  }

  async #end(): Promise<void> {
    this.control.finish();
    this.#worker.postMessage({ kind: "close" } satisfies ServiceCommand);
    this.#owner.signal?.removeEventListener("abort", this.#cancel);
    this.#worker.ref();
    const { promise: late, resolve } = Promise.withResolvers<"late">();
    // Its own join may take the limit too, so this one allows for both.
    const timer = setTimeout(() => resolve("late"), 2 * JOIN_LIMIT_MS);
    const outcome = await Promise.race([this.#exited.promise, late]);
    clearTimeout(timer);
    if (outcome === "late") {
      this.control.noteThreadsLeft();
      this.#worker.terminate();
    }
    this.#worker.unref();
    this.control.closeDescriptors();
  }

  #take(message: ServiceMessage): void {
    switch (message.kind) {
      case "result":
        return this.#calls.shift()?.resolve(message.value);
      case "failure":
        return this.#calls.shift()?.reject(this.failure());
      case "report":
        void this.#report(message);
    }
  }

  async #report({ name, values, asks }: ServiceMessage & { kind: "report" }): Promise<void> {
    const { side } = this.#owner;
    try {
      await this.#reports[name as keyof Reports](...(values as never[]));
    } catch (error) {
      if (asks) this.control.record(error, { side });
      else this.control.fail(error, { side });
    }
    if (asks) this.#gate.open();
  }

  readonly #cancel = (): void => {
    if (this.control.completed) return; // it is being wound down, and both sides know the outcome
    const { side, signal } = this.#owner;
    const cause: unknown = signal?.reason;
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.control.fail(
      new CancelledError("ERR_MULTIFD_CANCELLED", `Cannot go on: cancelled (${reason})`, { cause }),
      { side },
    );
  };
}

/** Waits for the first step of something that is disposed of when it fails. */
export async function started<Made extends AsyncDisposable>(
  made: Made,
  step: (made: Made) => Promise<void>,
): Promise<Made> {
  try {
    await step(made);
    return made;
  } catch (error) {
    await made[Symbol.asyncDispose]();
    throw error;
  }
}
