// What a page of the frontend does, with the axios client generated beside this file. tsc judges its types,
// Chromium runs it. `api` is the guide's own code, cut out of openapi.yaml.
import { AxiosError } from 'axios';
import * as medisecure from './client';
import type {
  AccountSummary,
  Appointment,
  AppointmentCreate,
  ErrorDetail,
  PatientPage,
  WorkingHoursEntry,
} from './client';
import { client } from './client/client.gen';
import { api } from './guide';

client.setConfig({ axios: api, baseURL: api.defaults.baseURL!, throwOnError: true });
const throwOnError = true;

export async function signIn(email: string, password: string): Promise<AccountSummary> {
  const { data } = await medisecure.login({ body: { email, password }, throwOnError });
  return data.user;
}

export async function signOut(): Promise<string> {
  return (await medisecure.logout({ throwOnError })).data.message;
}

export async function whoAmI(): Promise<string> {
  return (await medisecure.getMe({ throwOnError })).data.email;
}

export async function patients(search: string, limit = 10): Promise<PatientPage> {
  return (await medisecure.listPatients({ query: { search, limit }, throwOnError })).data;
}

export async function book(body: AppointmentCreate): Promise<Appointment> {
  return (await medisecure.createAppointment({ body, throwOnError })).data;
}

export async function appointment(id: string): Promise<Appointment> {
  return (await medisecure.getAppointment({ path: { id }, throwOnError })).data;
}

/** When a doctor works, as the front desk sets it. */
export async function setHours(id: string, hours: WorkingHoursEntry[]): Promise<number> {
  return (await medisecure.putDoctorHours({ path: { id }, body: { hours }, throwOnError })).data.total;
}

/** A button for each time at which a doctor is free on a day, by the clinic's clocks. A click books it for the
 * patient who is signed in, and says so; where somebody was quicker, it says that and shows what is left. */
export async function showFreeTimes(id: string, date: string): Promise<void> {
  const { timezone } = (await medisecure.getClinic({ throwOnError })).data;
  const { slots } = (await medisecure.listDoctorSlots({ path: { id }, query: { date }, throwOnError })).data;
  const [chart] = (await patients('')).patients;
  const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'short', timeZone: timezone });
  const buttons = slots.map((slot) => {
    const button = document.createElement('button');
    button.textContent = clock.format(new Date(slot));
    button.onclick = async () => {
      const body = { patientId: chart!.id, doctorId: id, date: slot, reason: 'Check-up' };
      const refused = await book(body).then(() => null, (error) => failure(Promise.reject(error)));
      await showFreeTimes(id, date);
      document.body.dataset.said = refused ? refused.detail : `Booked: ${slot}`;
    };
    return button;
  });
  document.body.replaceChildren(...buttons);
}

/** Who is free first, as a page says it. */
export async function firstFree(from: string, specialization: string): Promise<string> {
  const { slots } = (await medisecure.listSlots({ query: { from, specialization, limit: 1 }, throwOnError })).data;
  return slots.map((slot) => `${slot.doctorName}: ${slot.date}`).join();
}

/** The one line of the start page. The union has no tag: each shape is known by a key of its own. */
export async function headline(): Promise<string> {
  const { data: stats } = await medisecure.getDashboardStats({ throwOnError });
  if ('revenue' in stats) return `${stats.totalPatients} patients, ${stats.revenue} earned`;
  if ('pendingReports' in stats) return `${stats.pendingReports} reports to write`;
  if ('managedPatients' in stats) return `${stats.pendingRegistrations} registrations to link`;
  return `${stats.upcomingAppointments} appointments to come`;
}

export type Failure = { status: number; detail: string; retryAfter: number; requestId: string };

/** How a call failed, as the user is to read it. */
export async function failure(call: Promise<unknown>): Promise<Failure> {
  try {
    await call;
  } catch (error) {
    if (error instanceof AxiosError && error.response) {
      const { status, data, headers } = error.response;
      const { detail } = data as ErrorDetail;
      const [retryAfter, requestId] = [Number(headers['retry-after']), String(headers['x-request-id'])];
      return { status, detail, retryAfter, requestId };
    }
    throw error;
  }
  throw new TypeError('The call did not fail');
}

declare global {
  interface Window {
    app: object;
  }
}
window.app = {
  signIn, signOut, whoAmI, patients, book, appointment, setHours, showFreeTimes, firstFree, headline, failure, api,
};
