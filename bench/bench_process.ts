/**
 * A measured transfer between two fresh Bun processes that talk to the benchmark in lines, JSON
 * upwards and plain words downwards. Fresh, because a second transfer in a warm process would start
 * with compiled code and touched memory that no user's first transfer has.
 *
 *     receiver: makes its RAM resident    -> { endpoint }
 *     sender:   loads the image           -> { ready }
 *     sender:   is told "go", transfers   -> SideReport
 *     receiver: has confirmed             -> SideReport, then { sha256 } if it was asked for
 *
 * @module
 */

import type { SideMemory, TransferRun } from "./contender.ts";
import { residentMemory, resetPeak } from "./cpu_time.ts";
import { watchMachine } from "./idle_machine.ts";

/** What a side reports when its transfer is over. */
export interface SideReport {
  readonly cpuSeconds: number;
  /** Of these, what listening or connecting took. */
  readonly setUpCpuSeconds: number;
  readonly memory: SideMemory;
  /** From the first send to the confirmation; the sender's clock counts. */
  readonly seconds?: number | undefined;
  readonly setUpSeconds?: number | undefined;
  readonly wireBytes?: number | undefined;
}

/** What a receiver says last, outside all clocks: the digest of what arrived, in hex. */
export interface DigestReport {
  readonly sha256: string;
}

/** What a receiver reports when it listens. */
export interface ListenReport {
  readonly endpoint: string;
}

/** A script of this folder and what it is to do, as {@link sideOptions} gives it there. */
export type SideCommand = readonly [script: string, options: object];

const KILL_TIMEOUT_MS = 5_000;
const LOAD_TIMEOUT_MS = 120_000; // a large image on cold memory
const TRANSFER_TIMEOUT_MS = 180_000;
/** How long both sides come to rest before the clock runs: processes have only just started. */
export const SETTLE_MS = 300;

/**
 * Makes one transfer between two processes.
 *
 * @param receiver Its script has to report a {@link ListenReport}.
 * @param senderTo Gives the sender's script, which has to wait for a word once it is ready.
 * @param verify Whether the receiver was asked for a digest.
 * @throws {Error} If a side fails or stalls; its own words are on stderr.
 */
export async function transferBetween(
  receiver: SideCommand,
  senderTo: (endpoint: string) => SideCommand,
  verify: boolean,
): Promise<TransferRun> {
  await using receiving = new BenchProcess(receiver);
  const { endpoint } = await receiving.next<ListenReport>(LOAD_TIMEOUT_MS);
  await using sending = new BenchProcess(senderTo(endpoint));
  const watch = await sending.begin();
  const sent = await sending.next<SideReport>();
  const received = await receiving.next<SideReport>();
  const { noisy } = watch(sent.cpuSeconds + received.cpuSeconds);
  const digest = verify ? await receiving.next<DigestReport>() : undefined;
  return { ...transferRun(sent, received), noisy, sha256: digest?.sha256 };
}

/** What both sides report of one transfer; the sender's clock counts. */
export function transferRun(
  sent: SideReport,
  received: SideReport,
): Omit<TransferRun, "noisy" | "sha256"> {
  return {
    seconds: sent.seconds ?? 0,
    setUpSeconds: sent.setUpSeconds ?? 0,
    setUpCpuSeconds: sent.setUpCpuSeconds + received.setUpCpuSeconds,
    cpuSecondsSender: sent.cpuSeconds,
    cpuSecondsReceiver: received.cpuSeconds,
    wireBytes: sent.wireBytes ?? 0,
    memorySender: sent.memory,
    memoryReceiver: received.memory,
  };
}

/** A side as the benchmark sees it. */
export class BenchProcess implements AsyncDisposable {
  readonly #name: string;
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncGenerator<string, undefined>;

  constructor([script, options]: SideCommand) {
    this.#name = script;
    this.#child = Bun.spawn(
      [process.execPath, new URL(script, import.meta.url).pathname, JSON.stringify(options)],
      { stdin: "pipe", stdout: "pipe", stderr: "inherit" },
    );
    this.#lines = linesOf(this.#child.stdout);
  }

  /**
   * Waits for the next line.
   *
   * @throws {Error} If the process ends or stays silent.
   */
  async next<T>(timeoutMs = TRANSFER_TIMEOUT_MS): Promise<T> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), timeoutMs);
    const { value, done } = await this.#lines.next();
    clearTimeout(timer);
    if (done === true) {
      await this.#child.exited;
      const end = this.#child.signalCode ?? this.#child.exitCode;
      const limit = `it must report within ${timeoutMs} ms`;
      throw new Error(`Cannot go on with ${this.#name}: it ended with ${end}, ${limit}`);
    }
    return JSON.parse(value) as T;
  }

  /** Waits until the side is ready and at rest, lets it go, and watches the machine from there on. */
  async begin(): Promise<ReturnType<typeof watchMachine>> {
    await this.next(LOAD_TIMEOUT_MS);
    await Bun.sleep(SETTLE_MS);
    const watch = watchMachine();
    void this.#child.stdin.write("go\n");
    await this.#child.stdin.flush();
    return watch;
  }

  /** Waits for its end, or brings it about. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), KILL_TIMEOUT_MS);
    void this.#child.stdin.end(); // a side that waits for a word takes this as the end
    await this.#child.exited;
    clearTimeout(timer);
  }
}

/** What a side was told to do. */
export function sideOptions(): unknown {
  return JSON.parse(process.argv[2] ?? "{}");
}

/** What a script of a side uses to play its part. */
export class BenchSide {
  readonly #words = linesOf(Bun.stdin.stream());
  readonly #floorBytes: number;
  #blockBytes = 0;
  #cpu = process.cpuUsage();
  #setUpCpuSeconds = 0;

  /** Make it before anything else is loaded: what is resident now is Bun's own. */
  constructor() {
    this.#floorBytes = residentMemory().rssBytes;
  }

  /** Sends one line to the benchmark. */
  report(value: ListenReport | { readonly ready: true } | SideReport | DigestReport): void {
    console.log(JSON.stringify(value));
  }

  /** Says that everything is loaded and waits for the benchmark to say "go"; exits if it has gone. */
  async ready(): Promise<void> {
    this.report({ ready: true });
    const { done } = await this.#words.next();
    if (done === true) process.exit(1);
  }

  /** Call when the RAM is resident and nothing is connected: what is used from here on counts. */
  startCounting(blockBytes: number): void {
    this.#blockBytes = blockBytes;
    Bun.gc(true); // what loading the image left behind is not the transfer's
    resetPeak();
    this.#cpu = process.cpuUsage();
  }

  /** Call when everything is connected and nothing is sent. */
  endSetUp(): void {
    this.#setUpCpuSeconds = this.#cpuSeconds();
  }

  /** Reports a transfer that began at `startMs`, after a set-up since `setUpMs`, and has just ended. */
  finish(setUpMs: number, startMs: number, wireBytes: number): void {
    const seconds = (performance.now() - startMs) / 1000;
    const setUpSeconds = (startMs - setUpMs) / 1000;
    this.report({ ...this.counts(), seconds, setUpSeconds, wireBytes });
  }

  /** CPU and memory since {@link startCounting}. */
  counts(): SideReport {
    const { peakRssBytes } = residentMemory();
    const extraBytes = peakRssBytes - this.#blockBytes - this.#floorBytes;
    return {
      cpuSeconds: this.#cpuSeconds(),
      setUpCpuSeconds: this.#setUpCpuSeconds,
      memory: { peakRssBytes, extraBytes },
    };
  }

  #cpuSeconds(): number {
    const { user, system } = process.cpuUsage(this.#cpu);
    return (user + system) / 1e6;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  let partial = "";
  for await (const chunk of stream) {
    const lines = (partial + decoder.decode(chunk, { stream: true })).split("\n");
    partial = lines.pop() ?? "";
    yield* lines;
  }
}
