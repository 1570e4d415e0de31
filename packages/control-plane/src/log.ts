/** The log: JSON lines, each with the request that it belongs to. */
import { type DestinationStream, type Logger, pino } from 'pino';
import { requestFields } from './http/request.ts';

export function openLog(level: string, to?: DestinationStream): Logger {
  return pino({ name: 'control-plane', level, mixin: requestFields }, to ?? pino.destination(1));
}
