/**
 * Addresses of hosts, found before a session begins: its threads block and ask nobody.
 *
 * @module
 */
import { resolveNames } from "../net/endpoint.ts";
import type { SessionConfig } from "./session_config.ts";

/**
 * Checked options whose endpoint has its names replaced by addresses, on the event loop and within the
 * limit for a connection.
 *
 * @throws {SystemError} when a name is not known.
 */
export async function withAddress<Config extends SessionConfig>(config: Config): Promise<Config> {
  const endpoint = await resolveNames(config.endpoint, config.timeouts.connectMs);
  return { ...config, endpoint };
}
