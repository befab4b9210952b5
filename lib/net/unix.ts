/**
 * Unix sockets: with a file, `unix:/path`, or without one, `unix-abstract:name`, which exist as long as
 * somebody listens. QEMU has the latter in the `channels` of `migrate` and `migrate-incoming`, with
 * `abstract` set.
 *
 * @module
 */
import type { EndpointKind } from "./endpoint_kind.ts";
import { plainTransport } from "./plain_transport.ts";
import { acceptSocket, configureSocket, connectSocket, listenSocket } from "./socket.ts";
import { abstractUnixAddress, unixAddress, type SocketAddress } from "./socket_address.ts";
import { removeAbandonedSocket, socketFileRemover } from "./socket_file.ts";

/** A Unix socket by its file. */
export interface UnixEndpoint {
  readonly kind: "unix";
  readonly path: string;
}

/** A Unix socket by a name that no file has. */
export interface AbstractUnixEndpoint {
  readonly kind: "unix-abstract";
  readonly name: string;
}

/** Bytes of a path with the NUL behind it, or of a name with the one before it, that the kernel takes. */
const NAME_BYTES_MAX = 107;

/** What the two differ in. */
interface Naming<Endpoint> {
  readonly prefix: string;
  /** What it is called by, for messages. */
  readonly what: string;
  readonly form: string;
  make(name: string): Endpoint;
  nameOf(endpoint: Endpoint): string;
  address(name: Uint8Array, text: string): SocketAddress;
  /** Removes what nobody listens at any more. */
  readonly makeFree?: (name: string, address: SocketAddress) => boolean;
  /** Makes what removes that which listening leaves behind. */
  remover(name: string): () => void;
}

function unixKind<Endpoint extends UnixEndpoint | AbstractUnixEndpoint>(
  naming: Naming<Endpoint>,
): EndpointKind<Endpoint> {
  const { prefix, what } = naming;
  const format = (endpoint: Endpoint): string => `${prefix}${naming.nameOf(endpoint)}`;
  const addressOf = (endpoint: Endpoint): SocketAddress =>
    naming.address(new TextEncoder().encode(naming.nameOf(endpoint)), format(endpoint));
  return {
    forms: [naming.form],
    transport: plainTransport,
    format,
    parse: (text) => {
      if (!text.startsWith(prefix)) return undefined;
      const name = text.slice(prefix.length);
      const bytes = new TextEncoder().encode(name).byteLength;
      if (bytes < 1 || bytes > NAME_BYTES_MAX || name.includes("\0")) {
        throw new TypeError(
          `Cannot parse endpoint ${text}: the ${what} has ${bytes} bytes, must be 1 to ${NAME_BYTES_MAX}`,
        );
      }
      return naming.make(name);
    },
    resolve: (endpoint) => Promise.resolve(endpoint),
    listen: (endpoint, backlog) => {
      const name = naming.nameOf(endpoint);
      const address = addressOf(endpoint);
      const { makeFree } = naming;
      const { fd } = listenSocket(
        address,
        backlog,
        makeFree && { makeFree: () => makeFree(name, address) },
      );
      return {
        fd,
        endpoint,
        accept: () => acceptSocket(fd, () => format(endpoint)), // clients have no name of their own
        configure: configureSocket,
        removeName: naming.remover(name),
      };
    },
    connect: (endpoint, limitMs, session, onSocket) => {
      const fd = connectSocket(addressOf(endpoint), limitMs, session, onSocket);
      configureSocket(fd);
      return fd;
    },
  };
}

/** Sockets with a file. */
export const unix: EndpointKind<UnixEndpoint> = unixKind({
  prefix: "unix:",
  what: "path",
  form: "unix:/path",
  make: (path) => ({ kind: "unix", path }),
  nameOf: ({ path }) => path,
  address: unixAddress,
  makeFree: removeAbandonedSocket,
  remover: socketFileRemover,
});

/** Sockets without one. */
export const abstractUnix: EndpointKind<AbstractUnixEndpoint> = unixKind({
  prefix: "unix-abstract:",
  what: "name",
  form: "unix-abstract:name",
  make: (name) => ({ kind: "unix-abstract", name }),
  nameOf: ({ name }) => name,
  address: abstractUnixAddress,
  remover: () => () => {}, // nothing is left behind
});
