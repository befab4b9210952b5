/**
 * A real QEMU as the other end: started with the RAM block `pc.ram`, a serial port into a file and
 * a QMP socket, ended with everything it left behind when the variable goes out of scope.
 *
 * The guest runs by translation (`-accel tcg`) everywhere: a /dev/kvm that can be opened may still
 * hang, and a test must not depend on which machine it is on.
 *
 * @module
 */

import { readFile, rm } from "node:fs/promises";
import { cpuSeconds } from "../../bench/cpu_time.ts";
import { migrateInfo, type MigrateInfo } from "./migrate_info.ts";
import { QEMU_BINARIES, qemuMissing, type QemuVersion } from "./qemu_versions.ts";
import { asObject, asText, Qmp, QmpError, type JsonObject, type JsonValue } from "./qmp.ts";
import { TemporaryFolder } from "../kit/temporary_folder.ts";

/** What machine to start. Source and destination must agree in all but `incoming` and `ramFile`. */
export interface QemuOptions {
  /** Tells the machines of one test apart in messages. */
  readonly name: string;
  /** Which QEMU. Default: the machine's own. */
  readonly version?: QemuVersion | undefined;
  /** Default `max`; QEMUs of different ages need one that is the same in both. */
  readonly cpu?: string | undefined;
  /** Machine type, such as `pc`, `q35` or `pc-i440fx-8.0`. Default `q35`. */
  readonly machine?: string | undefined;
  readonly memoryMib: number;
  /** Firmware image; instead of it, or beside it, a Linux kernel with what it needs. */
  readonly bios?: string | undefined;
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
  readonly append?: string | undefined;
  /** File that is the guest's RAM, shared, so that others can read it. Default: private memory. */
  readonly ramFile?: string | undefined;
  /** Have all RAM resident before the machine starts. */
  readonly prealloc?: boolean | undefined;
  /** Wait for {@link Qemu.migrateIncoming} instead of booting. */
  readonly incoming?: "defer" | undefined;
  readonly uuid?: string | undefined;
  /** Stay stopped until {@link Qemu.cont}, also after an incoming migration. */
  readonly paused?: boolean | undefined;
  readonly extraArgs?: readonly string[] | undefined;
}

/** A migration that ended in another way than `completed`. */
export class QemuMigrationError extends Error {
  override readonly name = "QemuMigrationError";
  /** How it ended: `failed`, `cancelled`, or `unknown` when QEMU was gone before it said so. */
  readonly status: string;

  constructor(message: string, status: string, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

const EXIT_TIMEOUT_MS = 10_000;
const SERIAL_POLL_MS = 10;
const LOG_TAIL_CHARS = 2_000;
const MIGRATION_END = ["completed", "failed", "cancelled"];
const FATAL_SIGNALS: readonly NodeJS.Signals[] = ["SIGKILL", "SIGTERM", "SIGINT", "SIGQUIT"];

/** How a process ends by itself that has met a bug of its own. */
const CRASH_SIGNALS: readonly (NodeJS.Signals | number)[] = [
  "SIGSEGV",
  "SIGABRT",
  "SIGBUS",
  "SIGILL",
];

const breakdowns: string[] = [];

/** Takes note of a QEMU that has failed by itself: crashed, or got stuck for good. */
export function noteBreakdown(what: string): void {
  breakdowns.push(what);
}

/** What QEMUs have failed by themselves since the last call. */
export function takeBreakdowns(): string[] {
  return breakdowns.splice(0);
}

/**
 * Whether the QEMU tests can run here.
 *
 * @returns `null` if they can, or else what is missing, to be shown beside a skipped test.
 */
export function qemuAvailable(): string | null {
  return qemuMissing("10.0");
}

/**
 * One QEMU process.
 *
 * @example
 * ```ts
 * await using source = await Qemu.start({ name: "source", memoryMib: 64, bios: guest.path });
 * await using target = await Qemu.start({
 *   name: "target", memoryMib: 64, bios: guest.path, incoming: "defer",
 * });
 * await source.migrate(await target.migrateIncoming("tcp:127.0.0.1:0"));
 * await source.waitMigration(10_000);
 * ```
 */
export class Qemu implements AsyncDisposable {
  readonly name: string;
  readonly #process: Bun.Subprocess;
  readonly #folder = new TemporaryFolder();
  #qmp: Qmp | undefined;

  private constructor(options: QemuOptions) {
    this.name = options.name;
    const log = Bun.file(this.#path("log"));
    const binary = QEMU_BINARIES[options.version ?? "10.0"];
    const command = [...dieWithParent(), binary, ...machineArgs(options)];
    command.push("-serial", `file:${this.#path("serial")}`);
    command.push("-qmp", `unix:${this.#path("qmp")},server=on,wait=off`);
    this.#process = Bun.spawn(command, { stdin: "ignore", stdout: log, stderr: log });
    live.add(this);
    process.on("exit", endAll); // the same function: registering it again changes nothing
  }

  /**
   * Starts a machine and waits until it answers QMP. The `events` capability is on.
   *
   * @throws {Error} If QEMU exits instead; the message ends with what it printed.
   */
  static async start(options: QemuOptions): Promise<Qemu> {
    const vm = new Qemu(options);
    const exit = new AbortController();
    const early = (code: number): Error =>
      new Error(`Cannot start ${vm.name}: QEMU exited with ${code}, must stay up`);
    void vm.#process.exited.then((code) => exit.abort(early(code)));
    try {
      vm.#qmp = await Qmp.connect(vm.#path("qmp"), { name: options.name, signal: exit.signal });
      await vm.setCapabilities({ events: true });
      return vm;
    } catch (error) {
      const explained = await vm.#explain(error);
      await vm[Symbol.asyncDispose]();
      throw explained;
    }
  }

  /** The QMP connection, for commands and events without a method here. */
  get qmp(): Qmp {
    if (this.#qmp === undefined) throw new QmpError(`Cannot talk to ${this.name}: not started`);
    return this.#qmp;
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Settles when the process ends, however that comes about. */
  get exited(): Promise<number> {
    return this.#process.exited;
  }

  /** Runs one QMP command; see {@link Qmp.execute}. */
  async execute(command: string, args?: JsonObject, timeoutMs?: number): Promise<JsonValue> {
    try {
      return await this.qmp.execute(command, args, timeoutMs);
    } catch (error) {
      if (/no answer within/.test(String(error))) noteBreakdown(`${this.name} answers no command`);
      throw error;
    }
  }

  /** Sets migration capabilities by QEMU's names, such as `{ multifd: true }`. */
  async setCapabilities(capabilities: Readonly<Record<string, boolean>>): Promise<void> {
    await this.execute("migrate-set-capabilities", {
      capabilities: Object.entries(capabilities).map(([capability, state]) => ({
        capability,
        state,
      })),
    });
  }

  /** Sets migration parameters by QEMU's names, such as `{ "multifd-channels": 4 }`. */
  async setParameters(parameters: JsonObject): Promise<void> {
    await this.execute("migrate-set-parameters", parameters);
  }

  /** Starts an outgoing migration; {@link waitMigration} waits for its end. */
  async migrate(uri: string): Promise<void> {
    this.qmp.dropEvents("MIGRATION");
    await this.execute("migrate", { uri });
  }

  /**
   * Lets a machine started with `incoming: "defer"` accept a migration.
   *
   * @param exitOnError Whether QEMU exits when the migration fails, its default; otherwise it stays
   * to be asked why.
   * @returns The URI for the source; it holds the port QEMU chose for port 0.
   */
  async migrateIncoming(uri: string, exitOnError = true): Promise<string> {
    this.qmp.dropEvents("MIGRATION");
    // QEMU before 9.1 knows no other way than its default.
    const option = exitOnError ? {} : { "exit-on-error": false };
    await this.execute("migrate-incoming", { uri, ...option });
    return (await this.queryMigrate()).listenUri ?? uri;
  }

  /**
   * Waits for the end of the migration.
   *
   * @throws {QemuMigrationError} If it ends in another way than `completed`, with QEMU's reason and
   * the end of its log.
   * @throws {QmpError} If it does not end in time.
   */
  async waitMigration(timeoutMs: number): Promise<"completed"> {
    let status = "unknown";
    try {
      const event = await this.qmp.waitEvent("MIGRATION", timeoutMs, ({ data }) =>
        MIGRATION_END.includes(asText(data["status"], "MIGRATION status")),
      );
      status = asText(event.data["status"], "MIGRATION status");
      if (status === "completed") return status;
      const { errorDescription = "no reason given" } = await this.queryMigrate();
      throw new Error(errorDescription);
    } catch (error) {
      const cause = await this.#explain(error);
      if (error instanceof QmpError && !this.#gone) throw cause; // only the time was over
      const message = `Cannot migrate ${this.name}: ${status}, must be completed: ${cause.message}`;
      throw new QemuMigrationError(message, status, { cause });
    }
  }

  /** What QEMU reports of the migration. */
  async queryMigrate(): Promise<MigrateInfo> {
    return migrateInfo(asObject(await this.execute("query-migrate"), "query-migrate"));
  }

  /** QEMU's RunState: `running`, `paused`, `inmigrate`, `postmigrate`, ... */
  async status(): Promise<string> {
    const reply = asObject(await this.execute("query-status"), "query-status");
    return asText(reply["status"], "query-status");
  }

  /** Waits for a RunState: QEMU tells of a migration's end before it has drawn all conclusions. */
  async waitStatus(wanted: string, timeoutMs = EXIT_TIMEOUT_MS): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const status = await this.status();
      if (status === wanted) return;
      if (performance.now() > deadline) {
        throw new Error(`Cannot go on with ${this.name}: it is ${status}, must be ${wanted}`);
      }
      await Bun.sleep(SERIAL_POLL_MS);
    }
  }

  /** Stops the guest's CPUs. */
  async stop(): Promise<void> {
    await this.execute("stop");
  }

  /** Lets the guest's CPUs run. */
  async cont(): Promise<void> {
    await this.execute("cont");
  }

  /** What the guest has printed on its first serial port since this process started. */
  async serialOutput(): Promise<string> {
    return readFile(this.#path("serial"), "latin1").catch(() => "");
  }

  /**
   * Waits until the serial output matches.
   *
   * @returns The output up to now.
   * @throws {Error} If it does not match in time or QEMU exits.
   */
  async waitSerial(pattern: RegExp, timeoutMs: number): Promise<string> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const output = await this.serialOutput();
      if (pattern.test(output)) return output;
      const problem = `serial output ends ${JSON.stringify(output.slice(-80))}, must match ${pattern}`;
      if (performance.now() > deadline || this.#gone) {
        throw await this.#explain(new Error(`Cannot go on with ${this.name}: ${problem}`));
      }
      await Bun.sleep(SERIAL_POLL_MS);
    }
  }

  /** Copies guest-physical memory. Stop the guest first if the pages must fit each other. */
  async readPhysicalMemory(address: number, bytes: number): Promise<Uint8Array> {
    const filename = this.#path("memory");
    try {
      await this.execute("pmemsave", { val: address, size: bytes, filename });
      return await readFile(filename);
    } finally {
      await rm(filename, { force: true });
    }
  }

  /** CPU seconds the process has used, all threads. */
  cpuSeconds(): number {
    return cpuSeconds(this.pid);
  }

  /** The end of what QEMU printed. */
  async logTail(): Promise<string> {
    const log = await readFile(this.#path("log"), "utf8").catch(() => "");
    return log.slice(-LOG_TAIL_CHARS).trim();
  }

  /** Sends a signal and, if it is one that ends a process, waits until it is gone. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    this.#process.kill(signal);
    if (!FATAL_SIGNALS.includes(signal)) return;
    if (await this.#exitsWithin(EXIT_TIMEOUT_MS)) return;
    throw new Error(`Cannot end ${this.name}: still there after ${signal}, must be gone`);
  }

  /** Ends QEMU, whatever its state, and removes its files. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL"); // nothing of the machine is wanted, and it works on a stopped one
    await this.#qmp?.[Symbol.asyncDispose]();
    await this.#exitsWithin(EXIT_TIMEOUT_MS);
    const { signalCode } = this.#process;
    if (signalCode !== null && CRASH_SIGNALS.includes(signalCode)) {
      noteBreakdown(`${this.name} was ended by ${signalCode}`);
    }
    this.#removeFiles();
  }

  /** What dispose does, as far as it can be done while this process exits. */
  endNow(): void {
    this.#process.kill("SIGKILL");
    this.#removeFiles();
  }

  #removeFiles(): void {
    live.delete(this);
    this.#folder[Symbol.dispose]();
  }

  async #exitsWithin(timeoutMs: number): Promise<boolean> {
    const timeout = Promise.withResolvers<false>();
    const timer = setTimeout(() => timeout.resolve(false), timeoutMs);
    const ended = await Promise.race([this.#process.exited.then(() => true), timeout.promise]);
    clearTimeout(timer);
    return ended;
  }

  /** Adds what only this side knows: whether QEMU is still there, and its last words. */
  async #explain(error: unknown): Promise<Error> {
    const parts = [error instanceof Error ? error.message : String(error)];
    // QEMU closes its QMP socket a moment before the kernel reports its end.
    if (error instanceof QmpError && /closed/.test(error.message)) await this.#exitsWithin(1_000);
    if (this.#process.exitCode !== null) parts.push(`QEMU exited with ${this.#process.exitCode}`);
    if (this.#process.signalCode !== null)
      parts.push(`QEMU was ended by ${this.#process.signalCode}`);
    const log = await this.logTail();
    if (log !== "") parts.push(`log: ${log}`);
    const message = parts.join("; ");
    return error instanceof QmpError
      ? new QmpError(message, { cause: error })
      : new Error(message, { cause: error });
  }

  get #gone(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  #path(file: string): string {
    return this.#folder.file(file);
  }
}

const live = new Set<Qemu>();

function endAll(): void {
  for (const vm of live) vm.endNow();
}

/** A test process that is killed runs no handler; the kernel ends its machines instead. */
function dieWithParent(): string[] {
  const setpriv = Bun.which("setpriv"); // of util-linux, which every Debian has
  return setpriv === null ? [] : [setpriv, "--pdeathsig", "KILL", "--"];
}

function machineArgs(options: QemuOptions): string[] {
  const size = `${options.memoryMib}M`;
  const backend =
    options.ramFile === undefined
      ? `memory-backend-ram,id=pc.ram,size=${size}`
      : `memory-backend-file,id=pc.ram,size=${size},mem-path=${options.ramFile},share=on`;
  const args = ["-accel", "tcg", "-cpu", options.cpu ?? "max", "-nodefaults", "-no-user-config"];
  args.push("-display", "none", "-m", size);
  args.push("-object", options.prealloc === true ? `${backend},prealloc=on` : backend);
  args.push("-machine", `${options.machine ?? "q35"},memory-backend=pc.ram`);
  for (const key of ["bios", "kernel", "initrd", "append", "uuid", "incoming"] as const) {
    const value = options[key];
    if (value !== undefined) args.push(`-${key}`, value);
  }
  if (options.paused === true) args.push("-S");
  return [...args, ...(options.extraArgs ?? [])];
}
