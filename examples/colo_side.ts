/**
 * One side of the pair in a process of its own, and what it says: lines of JSON on stdout.
 *
 * @module
 */
import { spawn, type Subprocess } from "bun";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("colo.ts", import.meta.url));

/** How long a side may take to come up. */
const START_LIMIT_MS = 30_000;

/** A message of a side. */
export type Said = Record<string, unknown>;

/** See the module comment. */
export class ColoSide implements AsyncDisposable {
  readonly process: Subprocess<"ignore", "pipe", "inherit">;
  readonly said: Said[] = [];
  readonly #reading: Promise<void>;
  #hasEnded = false;

  constructor(args: readonly string[]) {
    this.process = spawn([process.execPath, program, ...args], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    this.#reading = this.#read();
  }

  /**
   * Waits for the first message that `matches`.
   *
   * @throws {Error} when the process ends without it or takes too long.
   */
  async hear(matches: (message: Said) => boolean): Promise<Said> {
    for (const deadline = Date.now() + START_LIMIT_MS; Date.now() < deadline;) {
      const hasEnded = this.#hasEnded;
      const found = this.said.find(matches);
      if (found !== undefined) return found;
      if (hasEnded) break;
      await Bun.sleep(2);
    }
    throw new Error(`Cannot go on: the other process did not say what it should`);
  }

  /** Waits for the end of the process and of its output. */
  async ended(): Promise<void> {
    await this.process.exited;
    await this.#reading;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.process.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.said.push(JSON.parse(line) as Said);
    }
    this.#hasEnded = true;
  }
}
