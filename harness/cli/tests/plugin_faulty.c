/* The example with a fault that ASSAY_PLUGIN_FAULT names: what test_plugin.py must see told. */
#define assay_plugin example_plugin
#define assay_plugin_configs example_configs
#define assay_plugin_select example_select
#include "harness/host/plugin_example.c"
#undef assay_plugin
#undef assay_plugin_configs
#undef assay_plugin_select

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
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

/* Lists the output and the routing alone: the rest goes where nobody looks, and backward finds it there. */
static int keeps_its_own(void) { return is("third run") || is("own state") || sums_elsewhere(); }
static assay_results with_its_own(const assay_results* r) {
  static uint16_t elsewhere[4][1 << 20];
  assay_results all = *r;
  if (!keeps_its_own()) return all;
  all.first_gemm = elsewhere[0];
  all.intermediate = elsewhere[1];
  all.second_gemm = elsewhere[2];
  all.hidden_states_unpermute = elsewhere[3];
  return all;
}

/* Whether that fault is asked for, and that config selected. */
static char selected[64];
static int in_config(const char* name, const char* config) {
  return is(name) && strcmp(selected, config) == 0;
}

static int32_t faulty_forward(const assay_problem* p, const assay_results* r, char* why, int64_t why_size) {
  static int calls = 0;
  ++calls;
  const int64_t elements = p->tokens * p->hidden_size;
  if (is("unsupported") || is("failed")) {
    strncpy(why, "needs 3 experts", (size_t)why_size - 1);
    return is("failed") ? ASSAY_FAILED : ASSAY_UNSUPPORTED;
  }
  if (is("no sentence")) return 42;
  if (is("crash") || in_config("one config crashes", "block=8")) raise(SIGSEGV);
  if (in_config("one config hangs", "block=64")) pause();
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
  if (is("limits")) { /* which outlive the problem that set them */
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_AS, &none);
    setrlimit(RLIMIT_FSIZE, &none);
  }
  if (is("closes everything"))
    for (int file = 0; file < 64; ++file) close(file);
  const assay_results all = with_its_own(r);
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
  if (is("half") || in_config("one config is wrong", "block=8") ||
      in_config("one config crashes", "block=64"))
    r->second_gemm[3] = to_bf16(0.5f * from_bf16(r->second_gemm[3]));
  return status;
}

/* The rows that backward reads, as second_gemm has them. */
static uint16_t* unpermuted_anew(const assay_problem* p, const assay_results* r) {
  static uint16_t rows[1 << 20];
  for (int64_t row = 0; row < p->tokens * p->top_k; ++row)
    memcpy(rows + r->gather_indices[row] * p->hidden_size, r->second_gemm + row * p->hidden_size,
           (size_t)p->hidden_size * sizeof(uint16_t));
  return rows;
}

/* A logit of an expert that token 0 has not chosen: its gradient is a residue of roundings. */
static int64_t unchosen(const assay_problem* p, const assay_results* r) {
  int64_t expert = 0;
  for (int64_t j = 0; j < p->top_k; ++j)
    if (r->selected_experts[j] == expert) {
      ++expert;
      j = -1;
    }
  return expert;
}

static int32_t faulty_backward(const assay_problem* p, const assay_results* r, const uint16_t* d_out,
                               const assay_gradients* g, char* why, int64_t why_size) {
  static int calls = 0; /* 1 and 2 behind the first forward, 3 on the tokens in reverse, 4 on them again */
  ++calls;
  uint16_t* d_input = g->d_input_hidden_states.values;
  const int64_t elements = p->tokens * p->hidden_size;
  if (is("backward unsupported") || is("backward failed")) {
    strncpy(why, "needs 3 experts", (size_t)why_size - 1);
    return is("backward failed") ? ASSAY_FAILED : ASSAY_UNSUPPORTED;
  }
  if (is("backward crash")) raise(SIGSEGV);
  if (is("backward crash the second time") && calls == 2) abort();
  if (is("backward hang")) pause();
  if (is("backward hang the second time") && calls == 2) pause();
  if (is("backward exit")) exit(0);
  assay_results all = with_its_own(r);
  if (is("backward overwrites")) all.hidden_states_unpermute = unpermuted_anew(p, r);
  const int32_t status = backward(p, &all, d_out, g, why, why_size);
  if (is("backward overwrites")) memset(r->second_gemm, 0, 64);
  if (is("backward touches")) r->hidden_states[7] ^= 1; /* which it does not read itself */
  if (is("backward behind")) d_input[elements] = 0;
  if (is("backward before")) ((uint16_t*)g->d_first_gemm.values)[-1] = 0;
  if (is("backward behind a result")) r->hidden_states[elements] = 0;
  if (is("backward far behind")) d_input[elements + 4096] = 0;
  if (is("backward input")) ((uint16_t*)p->down_proj)[5] ^= 1;
  if (is("backward output's gradient")) ((uint16_t*)d_out)[5] ^= 1;
  if (is("backward not listed")) ((uint16_t*)g->d_gate.values)[0] = 0;
  if (is("backward not written")) d_input[elements - 1] = 0xffff; /* as it was found */
  if (is("backward not written again") && calls == 2) ((uint16_t*)g->d_down_proj.values)[11] = 0xffff;
  if ((is("second backward") && calls == 2) || (is("later backward") && calls == 4)) /* legal */
    ((uint16_t*)g->d_router_logits.values)[unchosen(p, r)] ^= 1;
  if (is("backward half")) {
    uint16_t* d_first = g->d_first_gemm.values;
    d_first[3] = to_bf16(0.5f * from_bf16(d_first[3]) + 1.0f);
  }
  return status;
}

const char* assay_plugin_configs(void) {
  if (is("crash in assay_plugin_configs")) raise(SIGBUS);
  if (is("null configs")) return NULL;
  if (is("no configs")) return " ";
  if (is("a config twice")) return "block=8 block=8";
  if (is("a config with a quote")) return "block=8 'block=64'";
  return example_configs();
}

int32_t assay_plugin_select(const char* config, char* why, int64_t why_size) {
  const int second = strcmp(config, "block=8") == 0;
  strncpy(selected, config, sizeof(selected) - 1);
  if (is("crash in assay_plugin_select") && second) raise(SIGBUS);
  if (is("select fails") && second) return 42;
  if (is("select unsupported") && second) {
    strncpy(why, "needs 2 sockets", (size_t)why_size - 1);
    return ASSAY_UNSUPPORTED;
  }
  return example_select(config, why, why_size);
}

const assay_plugin_row* assay_plugin(void) {
  static assay_plugin_row row;
  if (is("crash in assay_plugin")) raise(SIGBUS);
  if (is("hang in assay_plugin")) pause();
  if (is("exit in assay_plugin")) exit(0);
  row = *example_plugin();
  row.forward = faulty_forward;
  row.backward = faulty_backward;
  if (is("interface")) row.interface = 7;
  if (is("interface 1")) { /* nothing behind its end is read */
    row.interface = 1;
    row.gradients = (const char*)1;
    row.backward = NULL;
  }
  if (is("memory")) row.memory = 5;
  if (is("no device")) row.memory = ASSAY_DEVICE;
  if (is("fields")) row.fields = "hidden_states hidden_state";
  if (is("no fields")) row.fields = " ";
  if (is("weights")) row.fields = "gate";
  if (is("contract")) row.contract = "fp8";
  if (is("accumulators")) row.accumulators = "tensor core";
  if (is("ties")) row.ties = "highest_index";
  if (is("null")) row.ties = NULL;
  if (keeps_its_own())
    row.fields =
        "router_logits selected_experts topk_weights token_counts_by_expert gather_indices hidden_states";
  if (is("not listed")) row.fields = "selected_experts hidden_states";
  if (in_config("one config's row", "block=64")) row.contract = "fp8";
  if (is("no forward")) row.forward = NULL;
  if (is("no backward")) row.backward = NULL;
  if (is("forward only")) row.backward = NULL;
  if (is("forward only") || is("no gradients")) row.gradients = NULL;
  if (is("gradients")) row.gradients = "d_gate d_gates";
  if (is("gradients of forward")) row.gradients = "d_gate first_gemm";
  if (is("gradients twice")) row.gradients = "d_gate d_down_proj d_gate";
  if (is("no gradient of a weight") || is("backward not listed"))
    row.gradients =
        "d_second_gemm d_topk_weights d_intermediate d_first_gemm d_permuted_hidden_states d_router_logits "
        "d_experts_hidden_states d_input_hidden_states";
  if (is("float32"))
    row.gradients =
        "d_second_gemm d_topk_weights d_intermediate d_down_proj:float32 d_first_gemm d_router_logits "
        "d_gate_up_proj:float32 d_gate:float32";
  if (is("unknown type")) row.gradients = "d_gate:float16";
  if (is("one gradient")) row.gradients = "d_input_hidden_states";
  return is("no row") ? NULL : &row;
}
