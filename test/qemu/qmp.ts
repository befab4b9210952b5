/**
 * QMP, QEMU's control protocol, as far as tests and benchmarks need it: one JSON object a line over
 * a Unix socket, commands answered by `id`, events in between.
 *
 * Every wait has a limit, because a QEMU that was killed or stopped by a test never answers and a
 * test-suite must end all the same. Events are kept until someone waits for them: QEMU sends the
 * end of a fast migration before the reply that started it has been looked at.
 *
 * @module
 */

import { createConnection, type Socket } from "node:net";

/** A value that QMP carries. Integers above 2^53 would lose precision; no test needs one. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;

/** A QMP object, such as the arguments of a command. */
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined;
}

/** Something QEMU reported by itself. */
interface QmpEvent {
  /** QEMU's name of the event, such as `MIGRATION` or `STOP`. */
  readonly event: string;
  /** What QEMU says about it; empty for an event without data. */
  readonly data: JsonObject;
  /** When it arrived here, on the clock of `performance.now()`. */
  readonly atMs: number;
}

/** A command that QEMU refused or did not answer, or a connection that ended. */
export class QmpError extends Error {
  override readonly name = "QmpError";
}

interface Waiter<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

interface EventWaiter extends Waiter<QmpEvent> {
  readonly event: string;
  match(event: QmpEvent): boolean;
}

const CONNECT_TIMEOUT_MS = 20_000; // a QEMU with a preallocated GiB on cold memory needs several s
const CONNECT_RETRY_MS = 10;
const COMMAND_TIMEOUT_MS = 30_000;
const EVENTS_MAX = 1_000; // a long run must not grow; nobody waits for an event that old

/** Settings of a QMP connection. */
interface QmpOptions {
  /** Name of the machine in error messages. */
  readonly name?: string | undefined;
  /** Limit for the socket to appear and QEMU to greet. Default 20 s. */
  readonly timeoutMs?: number | undefined;
  /** Ends the wait early, with the reason as error; for a QEMU that may exit while it starts. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * One QMP connection in command mode.
 *
 * @example
 * ```ts
 * await using qmp = await Qmp.connect("/run/vm1.qmp", { name: "vm1" });
 * await qmp.execute("stop");
 * await qmp.waitEvent("STOP", 1_000);
 * ```
 */
export class Qmp implements AsyncDisposable {
  readonly name: string;
  readonly #socket: Socket;
  readonly #replies = new Map<number, Waiter<JsonValue>>();
  readonly #eventWaiters = new Set<EventWaiter>();
  readonly #greeting = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  #events: QmpEvent[] = [];
  #partialLine = "";
  #nextId = 1;
  #failure: Error | undefined;

  private constructor(socket: Socket, name: string) {
    this.name = name;
    this.#socket = socket;
    this.#greeting.promise.catch(() => {}); // reported by connect(), which may have given up already
    socket.setEncoding("utf8"); // a character may arrive in two pieces
    socket.on("data", (text: string) => this.#receive(text));
    // A killed QEMU resets the connection when a command of ours is still unread.
    socket.on("error", (cause) => {
      const reason = `Cannot talk to ${name}: QMP was closed (${cause.message}), must stay open`;
      this.#fail(new QmpError(reason, { cause }));
    });
    socket.on("close", () => {
      this.#fail(new QmpError(`Cannot talk to ${name}: QMP was closed, must stay open`));
      this.#ended.resolve();
    });
  }

  /**
   * Connects to a QMP socket, waiting for it to appear, and negotiates.
   *
   * @param path The Unix socket of `-qmp unix:<path>,server=on,wait=off`.
   * @throws {QmpError} If QEMU does not greet in time.
   */
  static async connect(path: string, options: QmpOptions = {}): Promise<Qmp> {
    const { name = "QEMU", timeoutMs = CONNECT_TIMEOUT_MS, signal } = options;
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      signal?.throwIfAborted();
      try {
        const qmp = new Qmp(await connectSocket(path), name);
        try {
          const left = Math.max(1, deadline - performance.now());
          await bounded(qmp.#greeting.promise, left, `Cannot connect to ${name}: no QMP greeting`);
          await qmp.execute("qmp_capabilities", { enable: ["oob"] });
          return qmp;
        } catch (error) {
          await qmp[Symbol.asyncDispose]();
          throw error;
        }
      } catch (error) {
        // Until QEMU listens there is no socket, or one left behind that nobody accepts on.
        if (!(error instanceof Error && "code" in error)) throw error;
        if (error.code !== "ENOENT" && error.code !== "ECONNREFUSED") throw error;
        if (performance.now() > deadline) {
          const what = `no QMP socket after ${timeoutMs} ms, QEMU must have made it`;
          throw new QmpError(`Cannot connect to ${name}: ${what}`, { cause: error });
        }
      }
      await Bun.sleep(CONNECT_RETRY_MS);
    }
  }

  /** The events nobody has waited for yet, oldest first. */
  get events(): readonly QmpEvent[] {
    return this.#events;
  }

  /**
   * Runs one command. Commands may overlap; QEMU runs them in order.
   *
   * @returns What QEMU returned, an empty object for most commands that change something.
   * @throws {QmpError} If QEMU refuses, the connection has ended, or the time is over.
   */
  execute(command: string, args?: JsonObject, timeoutMs?: number): Promise<JsonValue> {
    return this.#run("execute", command, args, timeoutMs);
  }

  /** Runs one of the commands that QEMU can run while its main thread stands still. */
  executeOutOfBand(command: string, args?: JsonObject): Promise<JsonValue> {
    return this.#run("exec-oob", command, args);
  }

  async #run(
    how: "execute" | "exec-oob",
    command: string,
    args?: JsonObject,
    timeoutMs: number = COMMAND_TIMEOUT_MS,
  ): Promise<JsonValue> {
    if (this.#failure !== undefined) throw this.#failure;
    const id = this.#nextId++;
    const reply = Promise.withResolvers<JsonValue>();
    this.#replies.set(id, reply);
    this.#socket.write(`${JSON.stringify({ [how]: command, arguments: args, id })}\n`);
    try {
      return await bounded(
        reply.promise,
        timeoutMs,
        `Cannot run ${command} on ${this.name}: no answer`,
      );
    } catch (error) {
      if (error instanceof RefusedError) {
        throw new QmpError(`Cannot run ${command} on ${this.name}: ${error.message}`);
      }
      throw error;
    } finally {
      this.#replies.delete(id);
    }
  }

  /**
   * Waits for an event and takes it out of the queue. An event that came before the call counts, so
   * call {@link dropEvents} before an action that will report the same event again.
   *
   * @param name QEMU's name of the event.
   * @param match Chooses among events of that name. Default: the first one.
   * @throws {QmpError} If it does not come in time, or the connection ends.
   */
  async waitEvent(
    name: string,
    timeoutMs: number,
    match: (event: QmpEvent) => boolean = () => true,
  ): Promise<QmpEvent> {
    const index = this.#events.findIndex((event) => event.event === name && match(event));
    const [queued] = index < 0 ? [] : this.#events.splice(index, 1);
    if (queued !== undefined) return queued;
    if (this.#failure !== undefined) throw this.#failure;
    const wait = Promise.withResolvers<QmpEvent>();
    const waiter: EventWaiter = { event: name, match, ...wait };
    this.#eventWaiters.add(waiter);
    try {
      return await bounded(
        wait.promise,
        timeoutMs,
        `Cannot go on with ${this.name}: no event ${name}`,
      );
    } finally {
      this.#eventWaiters.delete(waiter);
    }
  }

  /** Forgets the queued events of one name, or all. */
  dropEvents(name?: string): void {
    this.#events = name === undefined ? [] : this.#events.filter((event) => event.event !== name);
  }

  /** Closes the connection; QEMU goes on running. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await this.#ended.promise;
  }

  #receive(text: string): void {
    const lines = (this.#partialLine + text).split("\n");
    this.#partialLine = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() === "") continue;
      try {
        this.#dispatch(asObject(JSON.parse(line) as JsonValue, "QMP message"));
      } catch (error) {
        this.#socket.destroy(error instanceof Error ? error : new QmpError(String(error)));
        return;
      }
    }
  }

  #dispatch(message: JsonObject): void {
    if (typeof message["event"] === "string") {
      const data = message["data"] === undefined ? {} : asObject(message["data"], "event data");
      this.#deliver({ event: message["event"], data, atMs: performance.now() });
    } else if (message["QMP"] !== undefined) {
      this.#greeting.resolve();
    } else if (typeof message["id"] === "number") {
      const waiter = this.#replies.get(message["id"]); // gone when its caller's time was over
      if (message["error"] === undefined) waiter?.resolve(message["return"] ?? {});
      else waiter?.reject(new RefusedError(refusal(message["error"])));
    }
  }

  #deliver(event: QmpEvent): void {
    for (const waiter of this.#eventWaiters) {
      if (waiter.event !== event.event || !waiter.match(event)) continue;
      this.#eventWaiters.delete(waiter);
      waiter.resolve(event);
      return;
    }
    this.#events.push(event);
    if (this.#events.length > EVENTS_MAX) this.#events.shift();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#greeting.reject(this.#failure);
    for (const waiter of [...this.#replies.values(), ...this.#eventWaiters]) {
      waiter.reject(this.#failure);
    }
    this.#eventWaiters.clear();
  }
}

/** QEMU's own words for a refusal; `execute()` adds which command it was. */
class RefusedError extends Error {}

function refusal(error: JsonValue): string {
  const description = asObject(error, "QMP error")["desc"];
  return typeof description === "string" ? description : JSON.stringify(error);
}

/**
 * Narrows a QMP value to an object.
 *
 * @param what What the value should be, for the message.
 * @throws {QmpError} If it is anything else.
 */
export function asObject(value: JsonValue | undefined, what: string): JsonObject {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as JsonObject; // Array.isArray() does not narrow a readonly array away
  }
  throw new QmpError(`Cannot read ${what}: ${JSON.stringify(value)}, must be an object`);
}

/**
 * Narrows a QMP value to a string.
 *
 * @param what What the value should be, for the message.
 * @throws {QmpError} If it is anything else.
 */
export function asText(value: JsonValue | undefined, what: string): string {
  if (typeof value === "string") return value;
  throw new QmpError(`Cannot read ${what}: ${JSON.stringify(value)}, must be a string`);
}

async function connectSocket(path: string): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = createConnection({ path });
  socket.once("error", reject);
  socket.once("connect", () => {
    socket.off("error", reject);
    resolve(socket);
  });
  return promise;
}

/** Waits for `promise`, at most `timeoutMs`; the timer never outlives the wait. */
async function bounded<T>(promise: Promise<T>, timeoutMs: number, failure: string): Promise<T> {
  const timeout = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    timeout.reject(new QmpError(`${failure} within ${timeoutMs} ms`));
  }, timeoutMs);
  try {
    return await Promise.race([promise, timeout.promise]);
  } finally {
    clearTimeout(timer);
  }
}
