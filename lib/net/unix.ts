/**
 * Unix sockets with a file: `unix:/path`.
 *
 * @module
 */
import type { Stoppable } from "../sync/semaphore.ts";
import type { EndpointKind, Listener } from "./endpoint_kind.ts";
import { plainTransport } from "./plain_transport.ts";
import { acceptSocket, configureSocket, connectSocket, listenSocket } from "./socket.ts";
import { unixAddress, type SocketAddress } from "./socket_address.ts";
import { removeAbandonedSocket, socketFileRemover } from "./socket_file.ts";

/** A Unix socket by its file. */
export interface UnixEndpoint {
  readonly kind: "unix";
  readonly path: string;
}

const PREFIX = "unix:";
/** Bytes of a path that fit the kernel's address, with its NUL. */
const PATH_BYTES_MAX = 107;

function parse(text: string): UnixEndpoint | undefined {
  if (!text.startsWith(PREFIX)) return undefined;
  const path = text.slice(PREFIX.length);
  const bytes = new TextEncoder().encode(path).byteLength;
  if (bytes < 1 || bytes > PATH_BYTES_MAX || path.includes("\0")) {
    throw new TypeError(
      `Cannot parse endpoint ${text}: the path has ${bytes} bytes, must be 1 to ${PATH_BYTES_MAX}`,
    );
  }
  return { kind: "unix", path };
}

function format({ path }: UnixEndpoint): string {
  return `${PREFIX}${path}`;
}

function addressOf(endpoint: UnixEndpoint): SocketAddress {
  return unixAddress(new TextEncoder().encode(endpoint.path), format(endpoint));
}

function listen(endpoint: UnixEndpoint, backlog: number): Listener<UnixEndpoint> {
  const { path } = endpoint;
  const address = addressOf(endpoint);
  const { fd } = listenSocket(address, backlog, {
    makeFree: () => removeAbandonedSocket(path, address),
  });
  return {
    fd,
    endpoint,
    accept: () => acceptSocket(fd, () => format(endpoint)), // clients have no name of their own
    configure: configureSocket,
    removeName: socketFileRemover(path),
  };
}

function connect(
  endpoint: UnixEndpoint,
  limitMs: number,
  session: Stoppable,
  onSocket: (fd: number) => void,
): number {
  const fd = connectSocket(addressOf(endpoint), limitMs, session, onSocket);
  configureSocket(fd);
  return fd;
}

/** See the module comment. */
export const unix: EndpointKind<UnixEndpoint> = {
  forms: ["unix:/path"],
  transport: plainTransport,
  parse,
  format,
  resolve: (endpoint) => Promise.resolve(endpoint),
  listen,
  connect,
};
