/* A driver of NVIDIA GPUs that are not there: what pynvml needs of libnvidia-ml.so.1.

   The file that SIMULATED_NVML names says what this machine has, a line each:

     init ERROR                        what nvmlInit answers (0 is no error)
     gpu UUID PCI MILLIWATTS UPDATE_MS name-without-spaces
     mig UUID GPU                      a slice of a GPU, by the GPU's number
     fails GPU FUNCTION ERROR CALLS    what a function answers after so many calls; FUNCTION is a name below
     backwards GPU CALLS               the energy counter starts again at zero after so many readings

   Energy grows with time at the set power; it is told as it was at the last update. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { OK, UNINITIALIZED, INVALID, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { MOST = 16 };

typedef struct { char function[32]; int error; long calls; } fault_t;
typedef struct {
  char uuid[96], pci[32], name[96];
  double milliwatts, update_s;
  long backwards; /* readings until then; -1 for never */
  double energy_mj, told_mj, last_s; /* energy up to last_s, and what it was at the last update */
  int parent, faults;                /* parent: -1 for a whole GPU */
  fault_t fault[8];
} gpu_t;

static gpu_t gpus[MOST];
static int count, ready, init_error;
static double begun_s;

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9 - begun_s;
}

static int whole(void) {
  int n = 0;
  while (n < count && gpus[n].parent < 0) n++;
  return n;
}

static void advance(gpu_t *g) {
  double now = now_s();
  while (g->update_s > 0) {
    double next = ((long)(g->last_s / g->update_s + 1e-9) + 1) * g->update_s;
    if (next > now) break;
    g->energy_mj += g->milliwatts * (next - g->last_s);
    g->last_s = next;
    g->told_mj = g->energy_mj;
  }
  g->energy_mj += g->milliwatts * (now - g->last_s);
  g->last_s = now;
  if (g->update_s <= 0) g->told_mj = g->energy_mj;
}

static int fault_of(gpu_t *g, const char *function) {
  if (!ready) return UNINITIALIZED;
  if (g < gpus || g >= gpus + count) return INVALID;
  for (int i = 0; i < g->faults; i++)
    if ((!strcmp(g->fault[i].function, function) || !strcmp(g->fault[i].function, "*")) &&
        g->fault[i].calls-- <= 0)
      return g->fault[i].error;
  return OK;
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (count == 0) {
    const char *file = getenv("SIMULATED_NVML");
    FILE *in = file ? fopen(file, "r") : NULL;
    char line[512];
    if (!in) return 9;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    begun_s = t.tv_sec + t.tv_nsec * 1e-9;
    while (fgets(line, sizeof line, in)) {
      gpu_t g = {.backwards = -1, .parent = -1};
      double ms;
      long calls;
      int n, error;
      char word[32];
      if (sscanf(line, "init %d", &error) == 1) init_error = error;
      else if (sscanf(line, "gpu %95s %31s %lf %lf %95s", g.uuid, g.pci, &g.milliwatts, &ms, g.name) == 5) {
        g.update_s = ms / 1000;
        gpus[count++] = g;
      } else if (sscanf(line, "mig %95s %d", g.uuid, &g.parent) == 2) {
        strcpy(g.name, "slice");
        gpus[count++] = g;
      } else if (sscanf(line, "fails %d %31s %d %ld", &n, word, &error, &calls) == 4) {
        fault_t *f = &gpus[n].fault[gpus[n].faults++];
        strcpy(f->function, word);
        f->error = error;
        f->calls = calls;
      } else if (sscanf(line, "backwards %d %ld", &n, &calls) == 2) gpus[n].backwards = calls;
    }
    fclose(in);
  }
  if (init_error) return init_error;
  ready = 1;
  return OK;
}

int nvmlShutdown(void) { return ready ? OK : UNINITIALIZED; }

const char *nvmlErrorString(int error) {
  static char text[32];
  snprintf(text, sizeof text, "simulated error %d", error);
  return text;
}

int nvmlDeviceGetCount_v2(unsigned *n) {
  *n = whole();
  return ready ? OK : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **found) {
  if (!ready) return UNINITIALIZED;
  if (index >= (unsigned)whole()) return INVALID;
  *found = gpus + index;
  return fault_of(*found, "handle");
}

int nvmlDeviceGetHandleByUUID(const char *uuid, gpu_t **found) {
  if (!ready) return UNINITIALIZED;
  for (int n = 0; n < count; n++)
    if (!strcmp(gpus[n].uuid, uuid)) {
      *found = gpus + n;
      return fault_of(*found, "handle");
    }
  return NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, gpu_t **found) {
  if (!ready) return UNINITIALIZED;
  for (int n = 0; n < whole(); n++)
    if (!strcasecmp(gpus[n].pci, pci)) {
      *found = gpus + n;
      return fault_of(*found, "handle");
    }
  return NOT_FOUND;
}

static int text_of(gpu_t *g, const char *function, const char *text, char *out, unsigned size) {
  int fault = fault_of(g, function);
  if (fault) return fault;
  if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
  strcpy(out, text);
  return OK;
}

int nvmlDeviceGetName(gpu_t *g, char *out, unsigned size) { return text_of(g, "name", g->name, out, size); }
int nvmlDeviceGetUUID(gpu_t *g, char *out, unsigned size) { return text_of(g, "uuid", g->uuid, out, size); }

int nvmlDeviceIsMigDeviceHandle(gpu_t *g, unsigned *is) {
  *is = g->parent >= 0;
  return fault_of(g, "mig");
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu_t *g, gpu_t **parent) {
  if (g->parent < 0) return INVALID;
  *parent = gpus + g->parent;
  return fault_of(g, "mig");
}

int nvmlDeviceGetTotalEnergyConsumption(gpu_t *g, unsigned long long *millijoules) {
  int fault = fault_of(g, "energy");
  if (fault) return fault;
  if (g->parent >= 0) return NOT_SUPPORTED;
  advance(g);
  if (g->backwards >= 0 && g->backwards-- == 0) g->energy_mj = g->told_mj = 0;
  *millijoules = (unsigned long long)g->told_mj;
  return OK;
}

int nvmlDeviceGetPowerUsage(gpu_t *g, unsigned *milliwatts) {
  int fault = fault_of(g, "power");
  if (fault) return fault;
  if (g->parent >= 0) return NOT_SUPPORTED;
  *milliwatts = (unsigned)g->milliwatts;
  return OK;
}

int nvmlDeviceGetMigMode(gpu_t *g, unsigned *current, unsigned *pending) {
  *current = *pending = 0;
  for (int n = whole(); n < count; n++)
    if (gpus + gpus[n].parent == g) *current = *pending = 1;
  return fault_of(g, "mig");
}
