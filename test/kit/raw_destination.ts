/**
 * A destination that speaks the protocol by hand, so that it can break it anywhere: it accepts the
 * connections of a sender, reads or does not read them, and answers what a test wants.
 *
 * @module
 */
import { createServer, type Server, type Socket } from "node:net";

/** The answer to the first PING of a sender of this library. */
export const PONG: Uint8Array = Uint8Array.of(0, 2, 0, 4, 0, 0, 0, 1);

/** The final message of a return path with its value. */
export function shut(value: number): Uint8Array {
  return Uint8Array.of(0, 1, 0, 4, 0, 0, 0, value);
}

/** What a destination does. */
export interface RawDestinationOptions {
  /** Read what arrives; default true. */
  readonly reading?: boolean;
  /** Answer the first PING, so that the sender goes on; default true. */
  readonly pong?: boolean;
  /** Called with the connection's kind, the number of its bytes so far, and each piece itself. */
  readonly onData?: (
    kind: "main" | "channel",
    bytes: number,
    socket: Socket,
    piece: Buffer,
  ) => void;
  /** Called with the main connection when it has ended its stream with a VM description. */
  readonly onEnd?: (main: Socket) => void;
}

/** See the module comment; disposing cuts everything. */
export class RawDestination implements AsyncDisposable {
  readonly endpoint: string;
  readonly sockets: Socket[] = [];
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.endpoint = `127.0.0.1:${port}`;
  }

  static async listen(options: RawDestinationOptions = {}): Promise<RawDestination> {
    const { reading = true, pong = true, onData, onEnd } = options;
    const server = createServer({ pauseOnConnect: !reading });
    const listening = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", listening.resolve);
    await listening.promise;
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const destination = new RawDestination(server, port);
    server.on("connection", (socket) => {
      destination.sockets.push(socket);
      socket.on("error", () => {});
      if (!reading) return;
      let bytes = 0;
      let kind: "main" | "channel" | undefined;
      let tail = Buffer.of();
      socket.on("data", (chunk: Buffer) => {
        kind ??= chunk[0] === 0x11 ? "channel" : "main";
        if (kind === "main" && bytes === 0 && pong) socket.write(PONG);
        bytes += chunk.byteLength;
        tail = Buffer.concat([tail, chunk]).subarray(-200);
        onData?.(kind, bytes, socket, chunk);
        // The description of a sender of this library begins with its page size.
        if (kind === "main" && tail.includes('{"page_size"') && tail.at(-1) === 0x7d)
          onEnd?.(socket);
      });
    });
    return destination;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }
}
