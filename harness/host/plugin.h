/* Your layer as a pipeline of assay. Build a shared library that exports `assay_plugin`, and run

       assay verify --fixture tiny --pipeline plugin:./libmine.so

   or, with its gradients, the same and --backward. C, nothing else needed: this file can be copied.
   harness/host/plugin_example.c and gpu/plugin_example.cu are whole plugins. The library runs in a process of
   its own: a crash, an exit or a call longer than --time-limit seconds is the verdict of that problem, and
   the next one finds it started anew. What it prints appears on stderr. */
#ifndef ASSAY_PLUGIN_H
#define ASSAY_PLUGIN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASSAY_PLUGIN_INTERFACE 2 /* libraries built for 1, which had no backward, still run */

enum {
  ASSAY_HOST = 0,
  ASSAY_DEVICE = 1
}; /* where pointers point: host memory, or the current CUDA device's */
enum {
  ASSAY_OK = 0,
  ASSAY_UNSUPPORTED = 1,
  ASSAY_FAILED = 2
}; /* what forward and backward return; a sentence in `why` goes with the last two */
enum { ASSAY_NONE = 0, ASSAY_BF16 = 1, ASSAY_FLOAT32 = 2 }; /* what a gradient's elements are */

/* The problem. Everything is row-major; bf16 values are their 16 bits. T tokens, H hidden_size, I
   moe_intermediate_size, E num_experts, K top_k. T may be 0. Not to be written to. */
typedef struct {
  int64_t tokens;
  int64_t hidden_size;
  int64_t moe_intermediate_size;
  int64_t num_experts;
  int64_t top_k;
  int32_t norm_topk_prob;              /* whether the K weights of a token are divided by their sum */
  const uint16_t* input_hidden_states; /* [T, H] */
  const uint16_t* gate;                /* [E, H] */
  const uint16_t* gate_up_proj;        /* [E, 2I, H], gate rows before up rows */
  const uint16_t* down_proj;           /* [E, H, I] */
} assay_problem;

/* The results, S = T * K rows; more where the row declares row_alignment. Null for fields that the plugin
 * does not list. Every byte is poisoned before a run. */
typedef struct {
  uint16_t* router_logits;           /* [T, E] */
  int32_t* selected_experts;         /* [T, K], best first */
  uint16_t* topk_weights;            /* [T, K] */
  int32_t* token_counts_by_expert;   /* [E] */
  int32_t* gather_indices;           /* [S]: flat slot t * K + j of each row, rows sorted by expert, stably */
  uint16_t* first_gemm;              /* [S, 2I], rows sorted by expert */
  uint16_t* intermediate;            /* [S, I] */
  uint16_t* second_gemm;             /* [S, H] */
  uint16_t* hidden_states_unpermute; /* [S, H], rows in slot order */
  uint16_t* hidden_states;           /* [T, H] */
} assay_results;

/* Where a gradient goes. Poisoned before every call, too. Null and ASSAY_NONE for one that the plugin does
 * not list, and for those that --dx-only (the weights') or --dw-only (the input's) leaves out. */
typedef struct {
  void* values;
  int32_t dtype;      /* as the plugin lists it */
  const void* before; /* of the same shape and dtype: values is to be the sum of this and the gradient, and
                         this is not to be written to. Null: the gradient alone */
} assay_gradient;

typedef struct {
  assay_gradient d_second_gemm;            /* [S, H], rows sorted by expert */
  assay_gradient d_topk_weights;           /* [T, K] */
  assay_gradient d_intermediate;           /* [S, I], rows sorted by expert */
  assay_gradient d_down_proj;              /* [E, H, I], zeros where an expert has no rows */
  assay_gradient d_first_gemm;             /* [S, 2I], rows sorted by expert */
  assay_gradient d_permuted_hidden_states; /* [S, H], rows sorted by expert */
  assay_gradient d_gate_up_proj;           /* [E, 2I, H], zeros where an expert has no rows */
  assay_gradient d_router_logits;          /* [T, E] */
  assay_gradient d_gate;                   /* [E, H] */
  assay_gradient d_experts_hidden_states;  /* [T, H]: of the input, without the router's part */
  assay_gradient d_input_hidden_states;    /* [T, H] */
} assay_gradients;

typedef struct {
  int32_t interface; /* ASSAY_PLUGIN_INTERFACE */
  int32_t memory;    /* ASSAY_HOST or ASSAY_DEVICE */
  const char* name;  /* for reports: "my fused kernel" */
  const char*
      fields; /* what forward writes, separated by blanks: "router_logits selected_experts hidden_states" */
  const char* contract;     /* where it rounds: "hf", or another name of `assay list contracts` */
  const char* accumulators; /* how its products sum: "hopper", "fp32_sequential", ... or "" where no order is
                               promised */
  const char* ties; /* among equal probabilities: "lowest_index", or "any"; followed by " rows_any" where the
                       rows of an expert come in no promised order, and by " row_alignment=N" (1 to 65536)
                       where every expert's rows begin at a multiple of N, as kernels want that pad to whole
                       tiles: all that is sorted by expert, gather_indices and gradients too, then has room
                       for S + E * (N - 1) rows. Expert e's begin behind those of expert e - 1 rounded up to a
                       multiple of N; one without rows takes none. Rows that are nobody's may hold anything.
                       selected_experts or token_counts_by_expert (without padding) must be listed */
  /* Runs the layer once. Called several times, on problems of one size; the same input must give the same
     bits each time. Each call must leave its results complete when assay synchronises the device behind it.
     `why` has room for why_size bytes. */
  int32_t (*forward)(const assay_problem* problem, const assay_results* results, char* why, int64_t why_size);
  /* Of interface 2; both null where there is no backward pass. */
  const char* gradients; /* what backward writes, separated by blanks, ":float32" behind what is not bf16:
                            "d_input_hidden_states d_gate_up_proj:float32 d_down_proj:float32" */
  /* Runs the backward pass of the forward call before it: the same problem and results, in place as forward
     left them. Called once or twice per forward, with the same d_hidden_states; the second call must give the
     same bits as the first. What forward saves for it, if results do not tell enough, is the plugin's own. */
  int32_t (*backward)(
      const assay_problem* problem, const assay_results* results,
      const uint16_t* d_hidden_states, /* [T, H], the output's gradient. Not to be written to */
      const assay_gradients* gradients, char* why, int64_t why_size);
} assay_plugin_row;

/* The one symbol that every library exports. */
const assay_plugin_row* assay_plugin(void);

/* Two more of a library that can run in several ways (tiles, depths, kernels): assay verify --sweep verifies
   each of them, --pipeline 'plugin:./libmine.so#tiles=64' that one alone. */

/* All its configs, the default one as well, as the library calls them, separated by blanks: "tiles=64
   tiles=128,depth=3". Of letters, digits and _ . , = : + - / */
const char* assay_plugin_configs(void);

/* Chooses one of them for this process; called once, before assay_plugin(), whose row may be another for
   another config. Where no config is asked for it is not called, and the library runs as it does by itself.
   Returns what forward returns. */
int32_t assay_plugin_select(const char* config, char* why, int64_t why_size);

#ifdef __cplusplus
}
#endif
#endif
