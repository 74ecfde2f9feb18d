/* A driver without a GPU: the NVML entry points that MELODI uses, over scripted power.
 *
 * Time is what stub_set_time_ns says. Each device's power is piecewise linear in time, once or
 * over and over; its energy is the exact integral; what NVML shows of both is held between
 * refreshes. A sensor may observe only the last part of each refresh: power is the mean of that
 * part then, and on demand the counter adds up no more than what such a sensor saw.
 *
 * Loaded by name into a process of its own it runs in real time, as the environment says:
 * NVML_STUB_SCRIPT="ORIGIN_NS;SECONDS:WATTS,SECONDS:WATTS;SECONDS:WATTS" is a script for each
 * of two devices, with 0 s at ORIGIN_NS of CLOCK_MONOTONIC. NVML_STUB_PROCESSES names a file
 * with a line "DEVICE PID BYTES SM_PERCENT" for each process on a device, read at each call. */

#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_DEVICES 8
#define MAX_POINTS 8192
#define MAX_PROCESSES 16
#define MAX_GENERATIONS 1000
#define GATE_MS 5000

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, TIMEOUT = 10, GPU_IS_LOST = 15 };
enum { FIELD_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186 };
enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };

/* What an error can be injected into; the order is that of nvml_stub.Call. */
enum { INIT, COUNT, HANDLE, UUID_LOOKUP, ENERGY, INSTANT_GPU, INSTANT_MODULE, AVERAGE, USAGE, LIMIT,
       CLOCK, TEMPERATURE, UTILISATION, THROTTLE, PROCESSES, ARCHITECTURE, NAME, BUSY,
       CALLS };

typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; }
    Process;
typedef struct { unsigned pid; unsigned long long at_us; unsigned sm, memory, encoder, decoder; }
    Busy;
typedef struct { unsigned field, scope; int64_t timestamp, latency; unsigned type, result;
                 union { double d; unsigned u; unsigned long long ull; } value; } FieldValue;

typedef struct {
    int points, processes, mig_parent, generation;
    int64_t at_ns[MAX_POINTS], repeat_ns, epoch_ns, refresh_ns, phase_ns, window_ns, observed_ns;
    double power_mw[MAX_POINTS], before_pj[MAX_POINTS];
    int counts_observed;
    int64_t counted_ns;
    double counted_pj;
    int error[CALLS], error_count[CALLS];
    long calls[CALLS];
    unsigned limit_mw, sm_mhz, memory_mhz, celsius, utilisation, architecture, forced_mw;
    unsigned long long throttle;
    Process process[MAX_PROCESSES];
    unsigned sm_percent[MAX_PROCESSES];
} Device;

static Device devices[MAX_DEVICES];
static int device_count, initialised;
static int64_t virtual_ns, origin_ns;
static int real_time;
static struct pollfd gate = {.fd = -1, .events = POLLIN};

static int64_t current_ns(void) {
    struct timespec t;
    if (!real_time) return virtual_ns;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - origin_ns;
}

/* ---- the script ------------------------------------------------------------------------- */

static double power_mw(const Device *d, int64_t t) {
    if (d->points == 0) return 0;
    if (d->repeat_ns > 0) t = (t % d->repeat_ns + d->repeat_ns) % d->repeat_ns;
    if (t <= d->at_ns[0]) return d->power_mw[0];
    if (t >= d->at_ns[d->points - 1]) return d->power_mw[d->points - 1];
    int low = 0, high = d->points - 1;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (d->at_ns[middle] < t) low = middle; else high = middle;
    }
    double share = (double)(t - d->at_ns[low]) / (double)(d->at_ns[high] - d->at_ns[low]);
    return d->power_mw[low] + share * (d->power_mw[high] - d->power_mw[low]);
}

/* Picojoules are milliwatts times nanoseconds; the integral of a line is its middle times dt.
 * Energy since the first point, of one round of the script. */
static double round_pj(const Device *d, int64_t t) {
    int last = d->points - 1;
    if (t <= d->at_ns[0]) return d->power_mw[0] * (double)(t - d->at_ns[0]);
    if (t >= d->at_ns[last])
        return d->before_pj[last] + d->power_mw[last] * (double)(t - d->at_ns[last]);
    int low = 0, high = last;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (d->at_ns[middle] < t) low = middle; else high = middle;
    }
    double part = (double)(t - d->at_ns[low]);
    double slope = (d->power_mw[high] - d->power_mw[low]) / (double)(d->at_ns[high] - d->at_ns[low]);
    return d->before_pj[low] + (d->power_mw[low] + slope * part / 2) * part;
}

static double until_pj(const Device *d, int64_t t) {
    if (d->points == 0) return 0;
    if (d->repeat_ns <= 0) return round_pj(d, t);
    int64_t rounds = t / d->repeat_ns - (t % d->repeat_ns < 0);
    double whole = round_pj(d, d->repeat_ns) - round_pj(d, 0);
    return (double)rounds * whole + round_pj(d, t - rounds * d->repeat_ns);
}

static double energy_pj(const Device *d, int64_t from, int64_t to) {
    return until_pj(d, to) - until_pj(d, from);
}

static int64_t shown_ns(const Device *d) {
    int64_t now_ns = current_ns();
    if (d->refresh_ns <= 0) return now_ns;
    int64_t since_ns = (now_ns - d->phase_ns) % d->refresh_ns;
    return now_ns - (since_ns < 0 ? since_ns + d->refresh_ns : since_ns);
}

/* What the sensor makes of the refresh that ended at `end`. */
static double observed_mw(const Device *d, int64_t end) {
    if (d->observed_ns <= 0) return power_mw(d, end);
    return energy_pj(d, end - d->observed_ns, end) / (double)d->observed_ns;
}

static double counted_pj(Device *d) {
    int64_t end = shown_ns(d);
    if (!d->counts_observed) return energy_pj(d, d->epoch_ns, end);
    if (d->counted_ns > end || d->counted_ns < d->epoch_ns) {
        d->counted_ns = d->epoch_ns;
        d->counted_pj = 0;
    }
    int64_t next = end - (end - d->counted_ns) / d->refresh_ns * d->refresh_ns;
    for (; next <= end; next += d->refresh_ns) {
        if (next <= d->counted_ns) continue;
        int64_t length = next - d->counted_ns;
        d->counted_pj += observed_mw(d, next) * (double)length;
        d->counted_ns = next;
    }
    return d->counted_pj;
}

/* ---- what the test sets ----------------------------------------------------------------- */

EXPORT void stub_reset(int count) {
    memset(devices, 0, sizeof devices);
    device_count = count;
    initialised = 0;
    virtual_ns = 0;
    real_time = 0;
    gate.fd = -1;
    for (int i = 0; i < MAX_DEVICES; i++) {
        Device *d = &devices[i];
        d->mig_parent = -1;
        d->limit_mw = 700000;
        d->sm_mhz = 1980;
        d->memory_mhz = 2619;
        d->celsius = 41;
        d->architecture = 9;
        d->refresh_ns = d->window_ns = 100000000;
        d->error[INSTANT_MODULE] = NOT_SUPPORTED;
        d->error_count[INSTANT_MODULE] = -1;
    }
}

/* Reading energy takes until this can be read from; it fails after GATE_MS. */
EXPORT void stub_wait_for(int fd) { gate.fd = fd; }
EXPORT void stub_set_time_ns(int64_t t) { virtual_ns = t; }
EXPORT void stub_add_point(int i, int64_t t, double mw) {
    Device *d = &devices[i];
    int n = d->points;
    if (n == MAX_POINTS) abort();
    d->at_ns[n] = t;
    d->power_mw[n] = mw;
    d->before_pj[n] = n == 0 ? 0 : d->before_pj[n - 1]
        + (d->power_mw[n - 1] + mw) / 2 * (double)(t - d->at_ns[n - 1]);
    d->points++;
}
/* Begin the script again, from 0 s, each time so much has passed. */
EXPORT void stub_repeat_ns(int i, int64_t repeat) { devices[i].repeat_ns = repeat; }
EXPORT void stub_set_phase_ns(int i, int64_t phase) { devices[i].phase_ns = phase; }
EXPORT void stub_set_observed_ns(int i, int64_t observed) { devices[i].observed_ns = observed; }
/* Let the counter add up what the sensor observed instead of all there was. */
EXPORT void stub_count_observed(int i, int on) { devices[i].counts_observed = on; }
EXPORT void stub_set_refresh_ns(int i, int64_t refresh) { devices[i].refresh_ns = refresh; }
EXPORT void stub_set_window_ns(int i, int64_t window) { devices[i].window_ns = window; }
EXPORT void stub_set_limit_mw(int i, unsigned limit) { devices[i].limit_mw = limit; }
EXPORT void stub_set_architecture(int i, unsigned a) { devices[i].architecture = a; }
EXPORT void stub_set_throttle(int i, unsigned long long bits) { devices[i].throttle = bits; }
EXPORT void stub_set_utilisation(int i, unsigned percent) { devices[i].utilisation = percent; }
EXPORT void stub_force_power_mw(int i, unsigned mw) { devices[i].forced_mw = mw; }
EXPORT void stub_set_mig_parent(int i, int parent) { devices[i].mig_parent = parent; }
EXPORT void stub_add_process(int i, unsigned pid, unsigned long long used, unsigned instance) {
    Device *d = &devices[i];
    d->process[d->processes++] = (Process){pid, used, instance, instance};
}
/* Percent of the SMs that a process has from now on, in all its entries. */
EXPORT void stub_set_busy(int i, unsigned pid, unsigned percent) {
    for (int p = 0; p < devices[i].processes; p++)
        if (devices[i].process[p].pid == pid) devices[i].sm_percent[p] = percent;
}
EXPORT void stub_clear_processes(int i) { devices[i].processes = 0; }
/* count -1: from now on; 0: no longer; n: the next n calls. */
EXPORT void stub_set_error(int i, int call, int code, int count) {
    devices[i].error[call] = code;
    devices[i].error_count[call] = count;
}
/* The counter starts again from 0, as after a reset of the GPU. */
EXPORT void stub_restart_counter(int i) { devices[i].epoch_ns = current_ns(); }
/* Every handle given out so far is lost for good; a look-up gives one that works. */
EXPORT void stub_lose_handles(int i) { devices[i].generation++; }
EXPORT long stub_calls(int i, int call) { return devices[i].calls[call]; }
EXPORT int stub_initialised(void) { return initialised; }
EXPORT double stub_true_energy_uj(int i, int64_t from, int64_t to) {
    return energy_pj(&devices[i], from, to) / 1e6;
}

__attribute__((constructor)) static void run_in_real_time(void) {
    const char *script = getenv("NVML_STUB_SCRIPT");
    if (!script) return;
    stub_reset(0);
    real_time = 1;
    char *at;
    origin_ns = strtoll(script, &at, 10);
    while (*at == ';' && device_count < MAX_DEVICES) {
        do {
            double seconds = strtod(at + 1, &at), watts = strtod(at + 1, &at);
            stub_add_point(device_count, (int64_t)(seconds * 1e9), watts * 1000);
        } while (*at == ',');
        device_count++;
    }
}

/* ---- NVML ------------------------------------------------------------------------------- */

static int injected(Device *d, int call) {
    d->calls[call]++;
    if (d->error_count[call] == 0) return SUCCESS;
    if (d->error_count[call] > 0) d->error_count[call]--;
    return d->error[call];
}

/* A handle is a number: one more than generation times MAX_DEVICES plus index. */
static void *handle_of(int i) {
    return (void *)(intptr_t)(1 + devices[i].generation * MAX_DEVICES + i);
}

static int enter(void *handle, int call, Device **found) {
    if (!initialised) return UNINITIALIZED;
    intptr_t number = (intptr_t)handle - 1;
    if (number < 0 || number >= MAX_GENERATIONS * MAX_DEVICES) return INVALID_ARGUMENT;
    Device *d = &devices[number % MAX_DEVICES];
    int error = injected(d, call);
    if (number / MAX_DEVICES != d->generation) return GPU_IS_LOST;
    *found = d->mig_parent < 0 ? d : &devices[d->mig_parent];
    return error;
}

#define ENTER(call) \
    Device *d; \
    int error = enter(handle, call, &d); \
    if (error) return error;

EXPORT int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int error = injected(&devices[0], INIT);
    if (!error) initialised++;
    return error;
}
EXPORT int nvmlShutdown(void) {
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return SUCCESS;
}
EXPORT const char *nvmlErrorString(int code) { (void)code; return "stub error"; }
EXPORT int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!initialised) return UNINITIALIZED;
    *count = (unsigned)device_count;
    return injected(&devices[0], COUNT);
}
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **handle) {
    if (!initialised) return UNINITIALIZED;
    if ((int)i >= device_count) return INVALID_ARGUMENT;
    *handle = handle_of((int)i);
    return injected(&devices[i], HANDLE);
}
/* The card of index 0 sits on bus 1, and so on. */
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **handle) {
    if (!initialised) return UNINITIALIZED;
    unsigned domain, bus, slot;
    if (sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3) return INVALID_ARGUMENT;
    if (domain || slot || bus < 1 || (int)bus > device_count) return NOT_FOUND;
    *handle = handle_of((int)bus - 1);
    return SUCCESS;
}
static void uuid_of(int i, char *text, unsigned length) {
    const char *prefix = devices[i].mig_parent < 0 ? "GPU" : "MIG";
    snprintf(text, length, "%s-%08x-0000-4000-8000-000000000000", prefix, i);
}
EXPORT int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    if (!initialised) return UNINITIALIZED;
    uuid_of((int)(((intptr_t)handle - 1) % MAX_DEVICES), text, length);
    return SUCCESS;
}
EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    if (!initialised) return UNINITIALIZED;
    for (int i = 0; i < device_count; i++) {
        char text[64];
        uuid_of(i, text, sizeof text);
        if (strcmp(text, uuid) == 0) {
            *handle = handle_of(i);
            return injected(&devices[i], UUID_LOOKUP);
        }
    }
    return NOT_FOUND;
}
EXPORT int nvmlDeviceIsMigDeviceHandle(void *handle, unsigned *is_mig) {
    *is_mig = devices[((intptr_t)handle - 1) % MAX_DEVICES].mig_parent >= 0;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *handle, void **parent) {
    *parent = handle_of(devices[((intptr_t)handle - 1) % MAX_DEVICES].mig_parent);
    return SUCCESS;
}
EXPORT int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    ENTER(NAME)
    snprintf(text, length, "Stub GPU");
    return SUCCESS;
}
EXPORT int nvmlDeviceGetArchitecture(void *handle, unsigned *architecture) {
    ENTER(ARCHITECTURE)
    *architecture = d->architecture;
    return SUCCESS;
}

/* Whether it is to fail after it hung. */
static int hung(void) { return gate.fd >= 0 && poll(&gate, 1, GATE_MS) == 0; }

EXPORT int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *mj) {
    ENTER(ENERGY)
    if (hung()) return TIMEOUT;
    *mj = (unsigned long long)(counted_pj(d) / 1e9);
    return SUCCESS;
}
static unsigned instant_mw(const Device *d) {
    return d->forced_mw ? d->forced_mw : (unsigned)observed_mw(d, shown_ns(d));
}
static unsigned average_mw(const Device *d) {
    if (d->forced_mw) return d->forced_mw;
    int64_t end = shown_ns(d), renewals = d->window_ns / (d->refresh_ns > 0 ? d->refresh_ns : 1);
    if (d->observed_ns <= 0 || renewals < 1)
        return (unsigned)(energy_pj(d, end - d->window_ns, end) / (double)d->window_ns);
    double sum = 0;
    for (int64_t k = 0; k < renewals; k++) sum += observed_mw(d, end - k * d->refresh_ns);
    return (unsigned)(sum / (double)renewals);
}
EXPORT int nvmlDeviceGetPowerUsage(void *handle, unsigned *mw) {
    ENTER(USAGE)
    *mw = average_mw(d);
    return SUCCESS;
}
EXPORT int nvmlDeviceGetFieldValues(void *handle, int count, FieldValue *values) {
    for (int i = 0; i < count; i++) {
        FieldValue *v = &values[i];
        Device *d;
        if (v->field == FIELD_ENERGY) {
            v->result = enter(handle, ENERGY, &d);
            v->type = UNSIGNED_LONG_LONG;
            if (v->result == SUCCESS) v->value.ull = (unsigned long long)(counted_pj(d) / 1e9);
            continue;
        }
        int average = v->field == FIELD_AVERAGE;
        if (!average && v->field != FIELD_INSTANT) return INVALID_ARGUMENT;
        v->result = enter(handle, average ? AVERAGE : v->scope ? INSTANT_MODULE : INSTANT_GPU, &d);
        if (v->result == UNINITIALIZED || v->result == INVALID_ARGUMENT) return v->result;
        v->type = UNSIGNED_INT;
        v->value.ull = 0;
        if (v->result == SUCCESS) v->value.u = average ? average_mw(d) : instant_mw(d);
    }
    return SUCCESS;
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *mw) {
    ENTER(LIMIT)
    *mw = d->limit_mw;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetClockInfo(void *handle, unsigned which, unsigned *mhz) {
    ENTER(CLOCK)
    *mhz = which == 2 ? d->memory_mhz : d->sm_mhz;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *celsius) {
    (void)sensor;
    ENTER(TEMPERATURE)
    *celsius = d->celsius;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetUtilizationRates(void *handle, unsigned rates[2]) {
    ENTER(UTILISATION)
    if (hung()) return TIMEOUT;
    rates[0] = d->utilisation;
    rates[1] = 0;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *bits) {
    ENTER(THROTTLE)
    *bits = d->throttle;
    return SUCCESS;
}
static void read_processes(void) {
    const char *path = getenv("NVML_STUB_PROCESSES");
    FILE *file = real_time && path ? fopen(path, "r") : NULL;
    if (!file) return;
    for (int i = 0; i < device_count; i++) devices[i].processes = 0;
    int i;
    unsigned pid, percent;
    unsigned long long used;
    while (fscanf(file, "%d %u %llu %u", &i, &pid, &used, &percent) == 4) {
        if (devices[i].processes == MAX_PROCESSES) continue;
        devices[i].sm_percent[devices[i].processes] = percent;
        stub_add_process(i, pid, used, 0);
    }
    fclose(file);
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *list) {
    ENTER(PROCESSES)
    read_processes();
    unsigned room = *count;
    *count = (unsigned)d->processes;
    if (d->processes == 0) return SUCCESS;
    if (room < (unsigned)d->processes) return INSUFFICIENT_SIZE;
    memcpy(list, d->process, (unsigned)d->processes * sizeof(Process));
    return SUCCESS;
}
/* One sample a process that was busy, a sixth of a second apart, as the driver's own. */
EXPORT int nvmlDeviceGetProcessUtilization(void *handle, Busy *list, unsigned *count,
                                           unsigned long long since_us) {
    ENTER(BUSY)
    unsigned room = *count, busy = 0;
    unsigned long long at_us = (unsigned long long)(current_ns() / 166667000) * 166667;
    for (int p = 0; p < d->processes; p++) {
        if (d->sm_percent[p] == 0 || at_us <= since_us) continue;
        if (list && busy < room)
            list[busy] = (Busy){d->process[p].pid, at_us, d->sm_percent[p], 0, 0, 0};
        busy++;
    }
    *count = busy;
    if (busy == 0) return since_us ? NOT_FOUND : SUCCESS;
    return list && room >= busy ? SUCCESS : INSUFFICIENT_SIZE;
}
