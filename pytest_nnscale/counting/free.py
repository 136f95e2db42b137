"""Operators that multiply no matrices, by name; each checked by hand.

They move, compare, normalise, pool, interpolate, draw or sum numbers, or make them up. Not among
them, on purpose: Fourier transforms, distances by matrix products, and decompositions (linalg).
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Neither counted nor run as kernels: torch asks them of tensor subclasses only.
METADATA = _names("""
    sym_is_contiguous is_contiguous is_strides_like_format is_non_overlapping_and_dense size
    sym_size stride sym_stride storage_offset sym_storage_offset numel sym_numel dim
""")

# Free, and no kernel either: they allocate, or change how a tensor is seen.
NO_KERNEL = _names("""
    empty empty_like empty_permuted empty_strided empty_quantized new_empty new_empty_strided
    _efficientzerotensor _empty_affine_quantized _empty_per_channel_affine_quantized
    _unsafe_view lift lift_fresh detach_ alias t_ transpose_ squeeze_ unsqueeze_ as_strided_
    swapaxes_ swapdims_ set_ set_data resize_ resize_as_ shallow_copy_data_ requires_grad_
    is_same_size is_set_to is_pinned is_coalesced _nnz dense_dim sparse_dim _dimI _dimV
    _coalesced_ _fused_sdp_choice _has_same_storage_numel record_stream
    _assert_async _assert_scalar _functional_assert_async _functional_assert_scalar
    _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size qscheme q_scale
    q_zero_point q_per_channel_scales q_per_channel_zero_points q_per_channel_axis unsafe_split
    unsafe_split_with_sizes unsafe_chunk _sparse_coo_tensor_with_dims_and_tensors
    _sparse_coo_tensor_with_dims _sparse_compressed_tensor_with_dims
    _sparse_coo_tensor_unsafe _nested_get_values _nested_get_offsets _nested_get_lengths
    _nested_get_ragged_idx _nested_get_min_seqlen _nested_get_max_seqlen
    _nested_get_jagged_dummy _nested_tensor_size _nested_tensor_strides
    _nested_tensor_storage_offsets
""")

# Free, and kernels: of aten.
FREE = _names("""
    arange eye fill fill_ full full_like linspace logspace ones ones_like range scalar_tensor
    tril_indices triu_indices zero zero_ zeros zeros_like new_full new_ones new_zeros
    bartlett_window blackman_window hamming_window hann_window kaiser_window complex polar
    bernoulli bernoulli_ binomial cauchy cauchy_ exponential exponential_ geometric geometric_
    log_normal log_normal_ multinomial normal normal_ normal_functional poisson rand rand_like
    randint randint_like randn randn_like random random_ randperm uniform uniform_
    _sample_dirichlet _dirichlet_grad _standard_gamma _standard_gamma_grad
    native_dropout native_dropout_backward _fused_dropout _masked_scale

    copy_ _copy_from _copy_from_and_resize _to_copy clone lift_fresh_copy _pin_memory _lazy_clone
    _local_scalar_dense _to_dense _to_sparse _to_sparse_csr _to_sparse_csc _to_sparse_bsr
    _to_sparse_bsc _coalesce sparse_mask to_padded_tensor _nested_from_padded
    _nested_tensor_from_tensor_list _nested_from_padded_tensor _padded_dense_to_jagged_forward
    _jagged_to_padded_dense_forward dequantize quantize_per_tensor quantize_per_tensor_dynamic
    quantize_per_channel int_repr _make_per_tensor_quantized_tensor
    _make_per_channel_quantized_tensor fake_quantize_per_tensor_affine_cachemask
    fake_quantize_per_channel_affine_cachemask _fused_moving_avg_obs_fq_helper
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    _fake_quantize_learnable_per_tensor_affine _fake_quantize_learnable_per_channel_affine

    cat stack _stack _chunk_cat block_diag constant_pad_nd flip roll rot90 repeat tril tril_
    triu triu_ diag_embed channel_shuffle pixel_shuffle pixel_unshuffle narrow_copy im2col col2im
    select_backward slice_backward diagonal_backward unfold_backward diagonal_scatter
    select_scatter slice_scatter as_strided_scatter _reshape_copy
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d reflection_pad1d_backward reflection_pad2d_backward
    reflection_pad3d_backward replication_pad1d_backward replication_pad2d_backward
    replication_pad3d_backward _pack_padded_sequence

    index _unsafe_index _unsafe_masked_index _unsafe_masked_index_put_accumulate index_add
    index_add_ index_copy index_copy_ index_fill index_fill_ index_put index_put_ _index_put_impl_
    _unsafe_index_put index_reduce index_reduce_ index_select gather scatter scatter_ scatter_add
    scatter_add_ scatter_reduce scatter_reduce_ put put_ take masked_fill_ masked_scatter
    masked_scatter_ masked_scatter_backward masked_select nonzero nonzero_static
    embedding embedding_dense_backward embedding_renorm embedding_renorm_ _embedding_bag
    _embedding_bag_forward_only _embedding_bag_backward _embedding_bag_dense_backward
    _embedding_bag_per_sample_weights_backward segment_reduce _segment_reduce_backward

    all any allclose amax amin aminmax argmax argmin mean median nanmedian mode nansum norm
    native_norm linalg_vector_norm logsumexp prod std std_mean sum var var_mean trace
    count_nonzero dist equal is_nonzero _is_all_true _is_any_true cummax cummin _cummax_helper
    _cummin_helper cumprod cumprod_ cumsum cumsum_ _logcumsumexp logcumsumexp kthvalue sort topk
    histc bincount bucketize searchsorted isin unique_consecutive unique_dim
    unique_dim_consecutive _unique _unique2 max min renorm renorm_ linalg_cross hash_tensor
    value_selecting_reduction_backward

    _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data _safe_softmax
    _masked_softmax _masked_softmax_backward glu glu_backward prelu _prelu_kernel
    _prelu_kernel_backward elu_backward hardshrink_backward hardsigmoid_backward hardswish
    hardswish_ hardswish_backward hardtanh_backward leaky_relu_backward log_sigmoid_forward
    log_sigmoid_backward mish_backward gelu_ mish_ softplus_backward softshrink_backward
    rrelu_with_noise rrelu_with_noise_ rrelu_with_noise_backward floor_divide floor_divide_
    copysign_ logit_backward threshold_ _add_relu _add_relu_

    native_batch_norm native_batch_norm_backward _native_batch_norm_legit
    _native_batch_norm_legit_functional _native_batch_norm_legit_no_training
    _batch_norm_with_update _batch_norm_with_update_functional _batch_norm_no_update
    batch_norm_backward batch_norm_stats batch_norm_elemt batch_norm_backward_reduce
    batch_norm_backward_elemt batch_norm_gather_stats batch_norm_gather_stats_with_counts
    batch_norm_update_stats cudnn_batch_norm cudnn_batch_norm_backward miopen_batch_norm
    miopen_batch_norm_backward native_group_norm native_group_norm_backward native_layer_norm
    native_layer_norm_backward _fused_rms_norm _fused_rms_norm_backward _weight_norm_interface
    _weight_norm_interface_backward

    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _adaptive_avg_pool3d
    _adaptive_avg_pool3d_backward adaptive_max_pool2d adaptive_max_pool2d_backward
    adaptive_max_pool3d adaptive_max_pool3d_backward avg_pool1d avg_pool2d avg_pool2d_backward
    avg_pool3d avg_pool3d_backward fractional_max_pool2d fractional_max_pool2d_backward
    fractional_max_pool3d fractional_max_pool3d_backward max_pool2d_with_indices
    max_pool2d_with_indices_backward max_pool3d_with_indices max_pool3d_with_indices_backward
    max_unpool2d max_unpool3d mkldnn_max_pool2d mkldnn_max_pool3d mkldnn_adaptive_avg_pool2d
    quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d

    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d
    upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa upsample_nearest1d_backward upsample_nearest2d_backward
    upsample_nearest3d_backward upsample_linear1d_backward upsample_bilinear2d_backward
    upsample_bicubic2d_backward upsample_trilinear3d_backward
    _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward
    _upsample_nearest_exact3d_backward _upsample_bilinear2d_aa_backward
    _upsample_bicubic2d_aa_backward grid_sampler_2d grid_sampler_2d_backward grid_sampler_3d
    grid_sampler_3d_backward _grid_sampler_2d_cpu_fallback cudnn_grid_sampler
    cudnn_grid_sampler_backward

    binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits
    huber_loss huber_loss_backward mse_loss mse_loss_backward smooth_l1_loss
    smooth_l1_loss_backward soft_margin_loss soft_margin_loss_backward multi_margin_loss
    multi_margin_loss_backward multilabel_margin_loss_forward multilabel_margin_loss_backward
    nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward _ctc_loss
    _ctc_loss_backward _cudnn_ctc_loss _use_cudnn_ctc_loss

    _amp_foreach_non_finite_check_and_unscale_ _amp_update_scale_ _fused_adagrad_ _fused_adam_
    _fused_adamw_ _fused_sgd_ _fused_adagrad _fused_adam _fused_adamw _fused_sgd
""")

# Box arithmetic and sampling: no contraction in them.
FREE_ELSEWHERE = _names("""
    torchvision::nms torchvision::roi_align torchvision::_roi_align_backward
    torchvision::roi_pool torchvision::_roi_pool_backward torchvision::ps_roi_align
    torchvision::_ps_roi_align_backward torchvision::ps_roi_pool
    torchvision::_ps_roi_pool_backward prim::device prim::layout
""")
