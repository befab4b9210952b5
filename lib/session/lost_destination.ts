/**
 * What a source makes of a connection that has broken: the reason is what the destination has said
 * last, or it is to be found over there.
 *
 * @module
 */
import {
  fromErrorRecord,
  MultifdError,
  PeerError,
  SystemError,
  TimeoutError,
  toErrorRecord,
} from "../errors.ts";
import type { SessionControl } from "../sync/session_control.ts";
import { USUAL_CAUSES, type ReturnPathReader } from "../wire/return_path.ts";

/** Codes of errors that say of a connection only that it has broken, on either side. */
const BROKEN = /^ERR_MULTIFD_CHANNEL(_ENDED)?$/;
const CHANNELS = "both sides must use the same number of channels";

/**
 * Looks for a better error than `error`, waiting for the destination's last words if there may be any.
 *
 * @param returnPath What the destination is heard on; undefined when it says nothing.
 * @param migrating Whether the migration is not over, so that its usual mistakes may be the cause.
 * @param goesOn Called once a tick; false ends the wait.
 * @returns undefined when `error` says all.
 */
export function explainLoss(
  error: unknown,
  returnPath: ReturnPathReader | undefined,
  migrating: boolean,
  goesOn?: () => boolean,
): MultifdError | undefined {
  if (isLoneChannel(error)) return withHint(error, "the main connection is there: " + CHANNELS);
  const broken = error instanceof MultifdError && BROKEN.test(error.code);
  if (!broken && !(error instanceof TimeoutError)) return undefined;
  const said = returnPath?.awaitReason(goesOn);
  if (said?.reason !== undefined) {
    // What it noticed of our own end is no reason for it.
    return BROKEN.test(said.reason.code) ? undefined : said;
  }
  if (!broken) return undefined;
  return (
    said ?? (migrating ? withHint(error, `the destination is gone: ${USUAL_CAUSES}`) : undefined)
  );
}

/**
 * Ends a session with `error`, or with a better one.
 *
 * @param peer Address of the destination, for messages.
 * @param returnPath As for {@linkcode explainLoss}, which waits no longer when the session is stopped
 * meanwhile.
 */
export function failExplained(
  error: unknown,
  control: SessionControl,
  peer: string,
  returnPath: ReturnPathReader | undefined,
  migrating: boolean,
): void {
  const { stopping } = control;
  const context = { side: "source", peer } as const;
  const better =
    error instanceof PeerError // a channel may have seen the consequence first
      ? error
      : explainLoss(
          control.error ?? error,
          returnPath,
          migrating,
          () => control.stopping === stopping,
        );
  if (better !== undefined) control.supersede(better, context);
  control.fail(error, context);
}

/** Whether a channel was not let in where the main connection was. */
function isLoneChannel(error: unknown): error is MultifdError {
  const refused = error instanceof SystemError || error instanceof TimeoutError;
  return refused && error.phase === "connect" && error.channel !== undefined;
}

/** The same error, with where to look for the reason. */
function withHint(error: MultifdError, hint: string): MultifdError {
  const record = toErrorRecord(error);
  return fromErrorRecord({ ...record, message: `${record.message}; ${hint}` }, error.cause);
}
