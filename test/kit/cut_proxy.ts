/**
 * A relay between the two sides of a session that can spoil it at a chosen moment. It tells the main
 * connection from channels by the first byte; with TLS all are alike, and the first is the main one.
 */
import type { Socket, TCPSocketListener } from "bun";

/** What passes by on one connection; returns what is passed on, or nothing to cut everything. */
type RelayFilter = (
  chunk: Buffer,
  from: "source" | "destination",
  connection: "main" | "channel",
  /** Its place in the order in which the source has connected. */
  number: number,
) => Buffer | undefined;

/** Sooner than any wait of the library ends. */
const DRIP_MS = 40;
const CHANNEL_FIRST_BYTE = 0x11;

/** See the module comment. Listens on a port of its own; dispose to end all connections. */
export class CutProxy implements Disposable {
  /** Where the source has to connect. */
  readonly endpoint: string;
  /** Looks at everything; replace it at any time. */
  filter: RelayFilter = (chunk) => chunk;
  /** The byte of the first connection from which on the source's come one at a time. */
  dripFrom = Infinity;
  /** How many have come like that. */
  dripped = 0;
  readonly #listener: TCPSocketListener<Relay>;
  readonly #relays = new Set<Relay>();

  /** @param target Endpoint of the destination, `host:port`. */
  constructor(target: string) {
    const [hostname = "", port = ""] = target.split(":");
    this.#listener = Bun.listen<Relay>({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open: (socket) => {
          socket.data = new Relay(this, socket, hostname, Number(port), this.#relays.size);
          this.#relays.add(socket.data);
        },
        data: (socket, chunk) => socket.data.fromSource(chunk),
        drain: (socket) => socket.data.drained(),
        close: (socket) => socket.data.end(),
      },
    });
    this.endpoint = `127.0.0.1:${this.#listener.port}`;
  }

  /** Ends all connections at once, as when a machine fails. */
  cut(): void {
    for (const relay of this.#relays) relay.cut();
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
    this.cut();
  }
}

/** One connection from each side, with what could not be written yet. */
class Relay {
  readonly #proxy: CutProxy;
  readonly #number: number;
  readonly #source: Socket<Relay>;
  #destination: Socket | undefined;
  #connection: "main" | "channel" | undefined;
  readonly #toSource: Buffer[] = [];
  readonly #toDestination: Buffer[] = [];
  #fromSource = 0;
  #slow = Buffer.of();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(
    proxy: CutProxy,
    source: Socket<Relay>,
    hostname: string,
    port: number,
    number: number,
  ) {
    this.#proxy = proxy;
    this.#number = number;
    this.#source = source;
    void Bun.connect({
      hostname,
      port,
      socket: {
        open: (socket) => {
          this.#destination = socket;
          this.drained();
        },
        data: (_socket, chunk) => this.#pass(chunk, "destination", this.#toSource),
        drain: () => this.drained(),
        close: () => {
          this.#source.end();
        },
        connectError: () => this.#source.terminate(),
      },
    });
  }

  fromSource(chunk: Buffer): void {
    this.#connection ??= chunk[0] === CHANNEL_FIRST_BYTE ? "channel" : "main";
    this.#pass(chunk, "source", this.#toDestination);
  }

  drained(): void {
    flush(this.#toDestination, this.#destination);
    flush(this.#toSource, this.#source);
  }

  end(): void {
    clearInterval(this.#timer);
    this.#destination?.end();
  }

  cut(): void {
    clearInterval(this.#timer);
    this.#source.terminate();
    this.#destination?.terminate();
  }

  #pass(chunk: Buffer, from: "source" | "destination", queue: Buffer[]): void {
    const connection = this.#connection ?? "main";
    const passed = this.#proxy.filter(Buffer.from(chunk), from, connection, this.#number);
    if (passed === undefined) return this.#proxy.cut();
    queue.push(from === "source" && this.#number === 0 ? this.#atOnce(passed) : passed);
    this.drained();
  }

  /** What of `chunk` passes now; the rest follows slowly. */
  #atOnce(chunk: Buffer): Buffer {
    const left = Math.max(0, this.#proxy.dripFrom - this.#fromSource);
    this.#fromSource += chunk.byteLength;
    if (chunk.byteLength <= left) return chunk;
    this.#slow = Buffer.concat([this.#slow, chunk.subarray(left)]);
    this.#timer ??= setInterval(() => {
      if (this.#slow.byteLength > 0) this.#proxy.dripped++;
      this.#toDestination.push(this.#slow.subarray(0, 1));
      this.#slow = this.#slow.subarray(1);
      this.drained();
    }, DRIP_MS);
    return chunk.subarray(0, left);
  }
}

function flush(queue: Buffer[], socket: Socket<unknown> | undefined): void {
  if (socket === undefined) return;
  for (let [next] = queue; next !== undefined; [next] = queue) {
    const written = socket.write(next);
    if (written < 0) return;
    if (written < next.byteLength) {
      queue[0] = next.subarray(written);
      return;
    }
    queue.shift();
  }
}
