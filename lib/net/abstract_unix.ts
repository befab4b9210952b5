/**
 * Unix sockets without a file, which exist as long as somebody listens: `unix-abstract:name`. QEMU
 * has them in the `channels` of `migrate` and `migrate-incoming`, with `abstract` set.
 *
 * @module
 */
import type { Stoppable } from "../sync/semaphore.ts";
import type { EndpointKind, Listener } from "./endpoint_kind.ts";
import { plainTransport } from "./plain_transport.ts";
import { acceptSocket, configureSocket, connectSocket, listenSocket } from "./socket.ts";
import { abstractUnixAddress, type SocketAddress } from "./socket_address.ts";

/** A Unix socket by a name that no file has. */
export interface AbstractUnixEndpoint {
  readonly kind: "unix-abstract";
  readonly name: string;
}

const PREFIX = "unix-abstract:";
/** Bytes of a name that fit the kernel's address behind its NUL. */
const NAME_BYTES_MAX = 107;

function parse(text: string): AbstractUnixEndpoint | undefined {
  if (!text.startsWith(PREFIX)) return undefined;
  const name = text.slice(PREFIX.length);
  const bytes = new TextEncoder().encode(name).byteLength;
  if (bytes < 1 || bytes > NAME_BYTES_MAX || name.includes("\0")) {
    throw new TypeError(
      `Cannot parse endpoint ${text}: the name has ${bytes} bytes, must be 1 to ${NAME_BYTES_MAX}`,
    );
  }
  return { kind: "unix-abstract", name };
}

function format({ name }: AbstractUnixEndpoint): string {
  return `${PREFIX}${name}`;
}

function addressOf(endpoint: AbstractUnixEndpoint): SocketAddress {
  return abstractUnixAddress(new TextEncoder().encode(endpoint.name), format(endpoint));
}

function listen(endpoint: AbstractUnixEndpoint, backlog: number): Listener<AbstractUnixEndpoint> {
  const { fd } = listenSocket(addressOf(endpoint), backlog);
  return {
    fd,
    endpoint,
    accept: () => acceptSocket(fd, () => format(endpoint)), // clients have no name of their own
    configure: configureSocket,
    removeName: () => {}, // nothing is left behind
  };
}

function connect(
  endpoint: AbstractUnixEndpoint,
  limitMs: number,
  session: Stoppable,
  onSocket: (fd: number) => void,
): number {
  const fd = connectSocket(addressOf(endpoint), limitMs, session, onSocket);
  configureSocket(fd);
  return fd;
}

/** See the module comment. */
export const abstractUnix: EndpointKind<AbstractUnixEndpoint> = {
  forms: ["unix-abstract:name"],
  transport: plainTransport,
  parse,
  format,
  resolve: (endpoint) => Promise.resolve(endpoint),
  listen,
  connect,
};
