/**
 * What a caller should know at once although nothing has failed, such as a source that will not wait
 * for a confirmation.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import type { OptionNames } from "../option_names.ts";

/** Something that a caller should know while the session goes on. */
export interface SessionWarning {
  /** Stays as it is from version to version. */
  readonly code:
    | "WARN_MULTIFD_RETURN_PATH"
    /** A key file that others may read or change. */
    | "WARN_MULTIFD_TLS_KEY_FILE"
    /** Somebody has tried to connect and could not; the wait goes on. */
    | "WARN_MULTIFD_TLS_REFUSED";
  readonly message: string;
}

/** What is done about a source that will not wait for a confirmation. */
export interface ReturnPathOptions {
  /**
   * Refuse a source that opens no return path, before any of its memory is sent. It would not wait
   * for a confirmation, and whatever fails here after its last byte is lost. Default false: it is
   * taken, after a warning.
   */
  readonly requireReturnPath?: boolean | undefined;
}

/** And who is told. */
export interface WarningOptions extends ReturnPathOptions {
  /** Called with what the caller should know at once and what ends nothing. */
  readonly onWarning?: ((warning: SessionWarning) => void) | undefined;
}

/** Names of {@linkcode WarningOptions}. */
export const WARNING_OPTIONS = {
  requireReturnPath: true,
  onWarning: true,
} satisfies OptionNames<WarningOptions>;

/**
 * About a source whose stream has come to the RAM without opening a return path.
 *
 * @param action What the session is about, for the message.
 * @param required Whether such a source is refused. Its guest still runs then.
 * @throws {StreamError} when it is.
 */
export function missingReturnPath(action: string, required: boolean): SessionWarning {
  if (required) {
    throw new StreamError(
      "ERR_MULTIFD_STREAM_RETURN_PATH",
      `Cannot ${action}: the source has opened no return path, must have capability return-path on; ` +
        "without it a failure from here on would lose the guest",
    );
  }
  return {
    code: "WARN_MULTIFD_RETURN_PATH",
    message:
      "The source has opened no return path (capability return-path): it gives its guest up as soon " +
      "as everything is sent, and a failure from then on loses it",
  };
}
