# The CUDA scan: mambapro_cuda, a static library with the CUDA runtime in it.
if(NOT MAMBAPRO_WITH_CUDA)
  return()
endif()

set(CMAKE_CUDA_ARCHITECTURES ${MAMBAPRO_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

add_library(mambapro_cuda STATIC scan_cuda.cu)
target_include_directories(mambapro_cuda PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_options(mambapro_cuda PRIVATE
  -O3 -Werror=all-warnings -Xptxas=-warn-spills,-Werror -Xcompiler=-Wall,-Wextra,-Werror)
set_target_properties(mambapro_cuda PROPERTIES
  CUDA_VISIBILITY_PRESET hidden
  POSITION_INDEPENDENT_CODE ON)
target_link_libraries(mambapro_cuda PUBLIC CUDA::cudart_static)
