/**
 * How errors of the code that saves or loads a device look to the user of a session.
 *
 * @module
 */
import { DeviceError, MultifdError } from "../errors.ts";

/** The library's own errors as they are; others as a {@linkcode DeviceError} naming the device. */
export function named(action: "save" | "load", idstr: string, error: unknown): MultifdError {
  if (error instanceof MultifdError && error.message.includes(idstr)) return error;
  const reason = error instanceof Error ? error.message : String(error);
  const { code = `ERR_MULTIFD_DEVICE_${action.toUpperCase()}`, errno } =
    error instanceof MultifdError ? error : ({} as Partial<MultifdError>);
  const context = errno === undefined ? { cause: error } : { cause: error, errno };
  return new DeviceError(
    code.startsWith("ERR_MULTIFD_DEVICE") ? code : `ERR_MULTIFD_DEVICE_${action.toUpperCase()}`,
    `Cannot ${action} device ${idstr}: ${reason}`,
    context,
  );
}
