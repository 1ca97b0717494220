/* The example with a fault that ASSAY_PLUGIN_FAULT names: what test_plugin.py must see told. */
#define assay_plugin example_plugin
#include "harness/host/plugin_example.c"
#undef assay_plugin

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const char* fault(void) {
  const char* name = getenv("ASSAY_PLUGIN_FAULT");
  return name == NULL ? "" : name;
}

static int is(const char* name) { return strcmp(fault(), name) == 0; }

/* As -Ofast does: subnormal numbers are zero from here on, for every thread started later, too. */
static void flush_to_zero(void) {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
#endif
}

__attribute__((constructor)) static void constructor(void) {
  if (is("flush to zero")) flush_to_zero();
  if (is("crash in the constructor")) raise(SIGSEGV);
  if (is("exit in the constructor")) _exit(0);
}

__attribute__((destructor)) static void destructor(void) {
  if (is("crash in the destructor")) raise(SIGSEGV);
}

/* Writes to the results for as long as the process lives. */
static void* meddle(void* results) {
  volatile uint16_t* first = results;
  for (;;) first[0] = 0x4000;
  return NULL;
}
static void* spin(void* unused) {
  volatile int turns = 0;
  for (;;) ++turns;
  return unused;
}
static void leave_a_thread(void* (*work)(void*), void* with) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, work, with) == 0) pthread_detach(thread);
}

/* A stack that is full. */
static int recurse(volatile int depth) {
  volatile char room[4096] = {0};
  return depth < 0 ? 0 : recurse(depth + 1) + room[depth % 4096];
}

/* Bits that depend on the batch or on the place in it: the output alone is listed, so that its last bit may
 * be another. */
static int sums_elsewhere(void) { return is("sums by batch") || is("place") || is("wrong in large batches"); }

static int32_t faulty_forward(const assay_problem* p, const assay_results* r, char* why, int64_t why_size) {
  static int calls = 0;
  ++calls;
  const int64_t elements = p->tokens * p->hidden_size;
  if (is("unsupported") || is("failed")) {
    strncpy(why, "needs 3 experts", (size_t)why_size - 1);
    return is("failed") ? ASSAY_FAILED : ASSAY_UNSUPPORTED;
  }
  if (is("no sentence")) return 42;
  if (is("crash")) raise(SIGSEGV);
  if (is("abort on other tokens") && calls == 2) abort();
  if (is("hang")) {
    fprintf(stderr, "the plugin hangs\n");
    pause();
  }
  if (is("hang the second time") && calls == 2) pause();
  if (is("exit")) exit(0);
  if (is("exit the second time") && calls == 2) _exit(3);
  if (is("crash on many tokens") && p->tokens > 16) abort();
  if (is("stack")) return recurse(0);
  if (is("elsewhere") && chdir("/") != 0) return ASSAY_FAILED;
  if (is("prints")) {
    printf("{\"printed by\": \"the plugin\"}\n");
    fprintf(stderr, "and on stderr\n");
  }
  if (is("rounding mode")) fesetround(FE_DOWNWARD);
  if (is("signals")) {
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGSEGV, SIG_IGN);
  }
  if (is("closes everything"))
    for (int file = 0; file < 64; ++file) close(file);
  assay_results all = *r;
  if (is("third run") || sums_elsewhere()) { /* lists the output alone: the rest goes where nobody looks */
    static uint16_t elsewhere[4][1 << 20];
    all.first_gemm = elsewhere[0];
    all.intermediate = elsewhere[1];
    all.second_gemm = elsewhere[2];
    all.hidden_states_unpermute = elsewhere[3];
  }
  const int32_t status = forward(p, &all, why, why_size);
  if (is("thread") && calls == 1) leave_a_thread(spin, NULL);
  if (is("thread that writes") && calls == 1) leave_a_thread(meddle, r->hidden_states);
  if (is("thread that writes")) usleep(50000); /* it has its turn before this call returns */
  if (is("program") && calls == 1 && system("sleep 600 &") != 0) return ASSAY_FAILED;
  if (is("far behind")) r->hidden_states[elements + 4096] = 0;
  if (is("run over")) memset(r->first_gemm, 0, 1 << 20);
  if (is("far read")) why[0] = (char)r->gather_indices[1 << 20];
  if (is("not listed")) r->first_gemm[0] = 0;
  if (is("order") && p->tokens > 1) { /* what a token gets depends on where it stands */
    for (int64_t n = 0; n < p->hidden_size; ++n) r->hidden_states[n] = to_bf16(1.0f);
  }
  if (is("behind")) r->hidden_states[elements] = 0;
  if (is("before")) r->first_gemm[-1] = 0;
  if (is("input")) ((uint16_t*)p->down_proj)[5] ^= 1;
  if (is("sums by batch") && p->tokens > 13) r->hidden_states[3] ^= 1; /* the merge of token 0: legal */
  if (is("place")) { /* the first call's token 0 has another bit wherever it is not first: legal */
    static uint16_t first[1 << 12];
    const size_t row = (size_t)p->hidden_size;
    if (calls == 1) memcpy(first, p->input_hidden_states, row * sizeof first[0]);
    for (size_t t = 1; t < (size_t)p->tokens; ++t)
      if (memcmp(first, p->input_hidden_states + t * row, row * sizeof first[0]) == 0)
        r->hidden_states[t * row + 3] ^= 1;
  }
  if (is("wrong in large batches") && p->tokens > 16) r->hidden_states[3] = 0x4700;
  if (is("third run") && calls == 3) r->hidden_states[3] ^= 1;    /* within its bound */
  if (is("not written")) r->hidden_states[elements - 1] = 0xffff; /* as it was found */
  if (is("left over") && calls == 3) r->first_gemm[7] ^= 1;
  if (is("wrong the first time") && calls == 1) memset(r->intermediate, 0, 64);
  if (is("half")) r->second_gemm[3] = to_bf16(0.5f * from_bf16(r->second_gemm[3]));
  return status;
}

const assay_plugin_row* assay_plugin(void) {
  static assay_plugin_row row;
  if (is("crash in assay_plugin")) raise(SIGBUS);
  if (is("hang in assay_plugin")) pause();
  if (is("exit in assay_plugin")) exit(0);
  row = *example_plugin();
  row.forward = faulty_forward;
  if (is("interface")) row.interface = 7;
  if (is("memory")) row.memory = 5;
  if (is("no device")) row.memory = ASSAY_DEVICE;
  if (is("fields")) row.fields = "hidden_states hidden_state";
  if (is("no fields")) row.fields = " ";
  if (is("weights")) row.fields = "gate";
  if (is("contract")) row.contract = "fp8";
  if (is("accumulators")) row.accumulators = "tensor core";
  if (is("ties")) row.ties = "highest_index";
  if (is("null")) row.ties = NULL;
  if (is("third run") || sums_elsewhere())
    row.fields =
        "router_logits selected_experts topk_weights token_counts_by_expert gather_indices hidden_states";
  if (is("not listed")) row.fields = "selected_experts hidden_states";
  if (is("no forward")) row.forward = NULL;
  return is("no row") ? NULL : &row;
}
